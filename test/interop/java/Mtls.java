import io.spiffe.provider.SpiffeSslContextFactory;
import io.spiffe.provider.SpiffeSslContextFactory.SslContextOptions;
import io.spiffe.spiffeid.SpiffeId;
import io.spiffe.spiffeid.TrustDomain;
import io.spiffe.workloadapi.X509Source;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.nio.charset.StandardCharsets;
import java.security.cert.X509Certificate;
import java.util.List;
import java.util.Map;
import java.util.Set;
import javax.net.ssl.SSLException;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;

/** Mutual TLS with the JDK's stack and java-spiffe's SSLContext. */
final class Mtls {
  private static final int URI = 6; // GeneralName uniformResourceIdentifier, RFC 5280 §4.2.1.6
  private static final int TIMEOUT_MS = (int) Interop.CALL_TIMEOUT.toMillis();

  private Mtls() {}

  /** Answers one verified peer; a peer that fails the handshake is reported and the next one is awaited. */
  static void serve(X509Source source) throws Exception {
    TrustDomain own = source.getX509Svid().getSpiffeId().getTrustDomain();
    var options = SslContextOptions.builder().x509Source(source).acceptAnySpiffeId().build();
    var sockets = SpiffeSslContextFactory.getSslContext(options).getServerSocketFactory();
    try (var listener = (SSLServerSocket) sockets.createServerSocket(0, 16, InetAddress.getLoopbackAddress())) {
      listener.setNeedClientAuth(true);
      listener.setSoTimeout(TIMEOUT_MS);
      Interop.emit(Map.of("port", listener.getLocalPort()));
      while (true) {
        var socket = (SSLSocket) listener.accept();
        try (socket) {
          Interop.emit(Map.of("peer", answer(socket, own)));
          return;
        } catch (IOException refusal) {
          Interop.emit(Map.of("refused", refusal.toString()));
        }
      }
    }
  }

  private static String answer(SSLSocket socket, TrustDomain own) throws Exception {
    socket.setSoTimeout(TIMEOUT_MS);
    socket.startHandshake();
    SpiffeId peer = peerId(socket);
    if (!peer.memberOf(own)) {
      throw new SSLException("peer " + peer + " is not a member of " + own);
    }
    socket.getOutputStream().write((peer + "\n").getBytes(StandardCharsets.UTF_8));
    socket.getOutputStream().flush();
    return peer.toString();
  }

  static void dial(X509Source source, int port, String expected) throws Exception {
    Set<SpiffeId> accepted = Set.of(SpiffeId.parse(expected));
    var options = SslContextOptions.builder().x509Source(source).acceptedSpiffeIdsSupplier(() -> accepted).build();
    var sockets = SpiffeSslContextFactory.getSslContext(options).getSocketFactory();
    try (var socket = (SSLSocket) sockets.createSocket(InetAddress.getLoopbackAddress(), port)) {
      socket.setSoTimeout(TIMEOUT_MS);
      socket.startHandshake();
      Interop.emit(Map.of("peer", peerId(socket).toString(), "seen", readLine(socket)));
    }
  }

  private static String readLine(SSLSocket socket) throws IOException {
    return new BufferedReader(new InputStreamReader(socket.getInputStream(), StandardCharsets.UTF_8)).readLine();
  }

  private static SpiffeId peerId(SSLSocket socket) throws Exception {
    var leaf = (X509Certificate) socket.getSession().getPeerCertificates()[0];
    for (List<?> name : leaf.getSubjectAlternativeNames()) {
      if (name.get(0).equals(URI)) {
        return SpiffeId.parse((String) name.get(1));
      }
    }
    throw new SSLException("the peer's certificate has no URI name");
  }
}
