import java.io.FileInputStream;
import java.io.InputStream;
import java.security.cert.CertPathValidator;
import java.security.cert.CertPathValidatorException;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.cert.PKIXParameters;
import java.security.cert.TrustAnchor;
import java.security.cert.X509Certificate;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/** {@code Verify <roots.pem> <chain.pem>...}: what PKIX says of each chain, one line {@code accept} or {@code refuse <why>} for each. */
public final class Verify {
  private static List<Certificate> read(String path) throws Exception {
    try (InputStream in = new FileInputStream(path)) {
      return new ArrayList<>(CertificateFactory.getInstance("X.509").generateCertificates(in));
    }
  }

  private static String judge(Set<TrustAnchor> anchors, String path) throws Exception {
    PKIXParameters parameters = new PKIXParameters(anchors);
    parameters.setRevocationEnabled(false);
    try {
      CertPathValidator.getInstance("PKIX").validate(CertificateFactory.getInstance("X.509").generateCertPath(read(path)), parameters);
      return "accept";
    } catch (CertPathValidatorException error) {
      return "refuse " + error.getReason() + ": " + error.getMessage();
    }
  }

  public static void main(String[] arguments) throws Exception {
    Set<TrustAnchor> anchors = new HashSet<>();
    for (Certificate root : read(arguments[0])) anchors.add(new TrustAnchor((X509Certificate) root, null));
    System.out.println("Java PKIX " + System.getProperty("java.runtime.version"));
    for (int index = 1; index < arguments.length; index += 1) System.out.println(judge(anchors, arguments[index]));
  }
}
