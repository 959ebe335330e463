import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import io.spiffe.exception.SocketEndpointAddressException;
import io.spiffe.svid.jwtsvid.JwtSvid;
import io.spiffe.workloadapi.DefaultJwtSource;
import io.spiffe.workloadapi.DefaultWorkloadApiClient;
import io.spiffe.workloadapi.DefaultX509Source;
import io.spiffe.workloadapi.JwtSourceOptions;
import io.spiffe.workloadapi.WorkloadApiClient;
import io.spiffe.workloadapi.X509Context;
import io.spiffe.workloadapi.X509Source;
import java.time.Duration;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.concurrent.TimeoutException;

/** Drives java-spiffe against a Workload API; the contract is in ../README.md. */
public final class Interop {
  static final Duration CALL_TIMEOUT = Duration.ofSeconds(30);
  private static final Duration ROTATE_TIMEOUT = Duration.ofSeconds(90);
  private static final Duration POLL_INTERVAL = Duration.ofMillis(100);
  private static final String OTHER_AUDIENCE = "another-audience";
  private static final Gson GSON = new GsonBuilder().disableHtmlEscaping().create();

  private Interop() {}

  public static void main(String[] args) {
    try {
      run(args);
    } catch (Exception error) {
      emit(Map.of("error", causes(error)));
      System.exit(1);
    }
    System.exit(0); // threads of gRPC must not hold the program
  }

  static void emit(Map<String, ?> line) {
    System.out.println(GSON.toJson(line));
    System.out.flush();
  }

  private static void run(String[] args) throws Exception {
    String usage = args.length + " " + (args.length == 0 ? "" : args[0]);
    switch (usage) {
      case "1 x509" -> x509();
      case "1 rotate" -> rotate();
      case "2 jwt" -> jwt(args[1]);
      case "1 bundles" -> bundles();
      case "1 serve" -> Mtls.serve(source());
      case "3 dial" -> Mtls.dial(source(), Integer.parseInt(args[1]), args[2]);
      default ->
        throw new IllegalArgumentException("usage: x509 | rotate | jwt AUD | bundles | serve | dial PORT EXPECTED_ID");
    }
  }

  private static X509Source source() throws Exception {
    return DefaultX509Source.newSource(
        DefaultX509Source.X509SourceOptions.builder().initTimeout(CALL_TIMEOUT).build());
  }

  private static WorkloadApiClient client() throws SocketEndpointAddressException {
    return DefaultWorkloadApiClient.newClient();
  }

  private static void x509() throws Exception {
    try (WorkloadApiClient client = client()) {
      X509Context context = client.fetchX509Context();
      var svid = context.getDefaultSvid();
      var bundle = context.getX509BundleSet().getBundleForTrustDomain(svid.getSpiffeId().getTrustDomain());
      emit(Map.of(
          "id", svid.getSpiffeId().toString(),
          "hint", svid.getHint() == null ? "" : svid.getHint(),
          "chain", svid.getChain().size(),
          "bundle", bundle.getX509Authorities().size(),
          "notAfter", svid.getLeaf().getNotAfter().toInstant().getEpochSecond()));
    }
  }

  /** The source tells nobody about its updates, so it is asked again and again. */
  private static void rotate() throws Exception {
    long deadline = System.nanoTime() + ROTATE_TIMEOUT.toNanos();
    Set<String> serials = new HashSet<>();
    try (X509Source source = source()) {
      while (serials.size() < 2) {
        String serial = source.getX509Svid().getLeaf().getSerialNumber().toString(16);
        if (serials.add(serial)) {
          emit(Map.of("serial", serial));
        }
        if (System.nanoTime() > deadline) {
          throw new TimeoutException("no rotation within " + ROTATE_TIMEOUT);
        }
        Thread.sleep(POLL_INTERVAL.toMillis());
      }
    }
  }

  private static void jwt(String audience) throws Exception {
    try (WorkloadApiClient client = client();
        var source = DefaultJwtSource.newSource(JwtSourceOptions.builder().initTimeout(CALL_TIMEOUT).build())) {
      String token = source.fetchJwtSvid(audience).getToken();
      JwtSvid local = JwtSvid.parseAndValidate(token, source, Set.of(audience));
      JwtSvid remote = client.validateJwtSvid(token, audience);
      emit(Map.of(
          "local", Map.of("sub", local.getSpiffeId().toString(), "aud", local.getAudience()),
          "remote", Map.of("sub", remote.getSpiffeId().toString(), "aud", remote.getAudience()),
          "refused", Map.of(
              "local", refusal(() -> JwtSvid.parseAndValidate(token, source, Set.of(OTHER_AUDIENCE))),
              "remote", refusal(() -> client.validateJwtSvid(token, OTHER_AUDIENCE)))));
    }
  }

  /** The text of the error with which the call is refused; empty if it is not. */
  private static String refusal(Callable<?> call) {
    try {
      call.call();
      return "";
    } catch (Exception error) {
      return causes(error);
    }
  }

  private static String causes(Throwable error) {
    return error + (error.getCause() == null ? "" : ": " + causes(error.getCause()));
  }

  private static void bundles() throws Exception {
    try (WorkloadApiClient client = client()) {
      Map<String, Integer> authorities = new TreeMap<>();
      client.fetchX509Bundles().getBundles()
          .forEach((name, bundle) -> authorities.put(name.toString(), bundle.getX509Authorities().size()));
      Map<String, Set<String>> keys = new TreeMap<>();
      client.fetchJwtBundles().getBundles()
          .forEach((name, bundle) -> keys.put(name.toString(), bundle.getJwtAuthorities().keySet()));
      emit(Map.of("x509", authorities, "jwt", keys));
    }
  }
}
