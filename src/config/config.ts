import type { LogLevel } from '../log.ts';
import type { Entry } from '../spiffe/entry.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import type { KeyType } from '../spiffe/key-type.ts';

/**
 * Everything an operator can choose, checked and deeply frozen. In YAML a duration is written with its unit under the name
 * without `Ms` (`ttl: 1h` is `ttlMs: 3600000`); every other key is spelled as here. Only `trustDomain` has no default.
 */
export interface Config {
  /** The trust domain whose identities are handed out. Required (ID-21: an agent must not mint for a domain nobody named). */
  readonly trustDomain: TrustDomain;
  /** The Workload API's Unix socket: absolute, at most 98 bytes. Default `/run/signet/public/api.sock`. */
  readonly socketPath: string;
  /** Where the embedded authority keeps its keys: absolute. Default `/var/lib/signet`. */
  readonly dataDir: string;
  /**
   * What must survive a restart of the agent but no reboot, on a tmpfs that only the agent's user reads: the keys of a node CA, the
   * last known pods and rules, the admin socket. Absolute. Default `/run/signet/private`.
   */
  readonly privateDir: string;
  /** The name of the cluster, for templates: several clusters in one trust domain need it in their IDs. Default: ''. */
  readonly clusterName: string;
  /** The DNS domain of the cluster, for templates. Default `cluster.local`. */
  readonly clusterDomain: string;
  /**
   * What an agent does whose socket another one took over. `exit` (the default) ends it. `wait` keeps it idle until it is told to
   * end, for a supervisor that would start it again: it would take the socket back.
   */
  readonly onSuperseded: 'exit' | 'wait';
  readonly kubernetes: KubernetesConfig;
  readonly x509: X509Config;
  readonly jwt: JwtConfig;
  readonly authority: AuthorityConfig;
  readonly attestation: AttestationConfig;
  readonly registration: RegistrationConfig;
  readonly trust: TrustConfig;
  /** Which callers own which identity. Default: none, so that every caller is told that it has no identity. */
  readonly entries: readonly Entry[];
  readonly limits: Limits;
  /** How long an identity that a changed configuration takes away is still served; 0s to 1h. Default 10s. */
  readonly withdrawalDelayMs: number;
  readonly log: LogConfig;
  readonly telemetry: TelemetryConfig;
  readonly audit: AuditConfig;
  readonly admin: AdminConfig;
}

/** X.509-SVIDs. */
export interface X509Config {
  /** Lifetime where an entry names none; 10s to 8760h. Default 1h: renewed at half of it; a stolen key serves no longer. */
  readonly ttlMs: number;
  /** Key of leaves and authorities: `ec-p256`, `ec-p384` or `rsa-2048`. Default `ec-p256`: the cheapest that all clients read. */
  readonly keyType: KeyType;
}

/** JWT-SVIDs. */
export interface JwtConfig {
  /** Lifetime where an entry names none; 10s to 24h. Default 5m: a bearer token can be replayed by whoever sees it. */
  readonly ttlMs: number;
  /** The `iss` claim: an https URL without query and fragment (RFC 8414 §2). Default: no such claim. */
  readonly issuer: string | undefined;
  /** `node`: a key of this node. `transit`: a key in Vault that never leaves it; needs `authority.vault`. Default `node`. */
  readonly signer: 'node' | 'transit';
  /** Vault's transit engine; undefined unless `signer: transit`. */
  readonly transit: TransitConfig | undefined;
  /**
   * On a cluster: how long a key of this node is public before a first token is signed with it; 0s to 1m. Default 2s, within which the
   * other nodes hear of it.
   */
  readonly propagationMs: number;
}

export interface TransitConfig {
  /** Default `transit`. */
  readonly mount: string;
  readonly key: string;
}

/** The CAs that can sign, in the order of the documentation. */
export const AUTHORITY_TYPES = ['embedded', 'files', 'vault', 'step-ca', 'spire', 'cert-manager'] as const;

/** Who signs. */
export interface AuthorityConfig {
  /**
   * `embedded`: an own root, kept in `dataDir`. `files`: a node CA under a CA whose certificate and key are in files. `vault`: under,
   * or by, one of Vault's. `step-ca`: under a smallstep CA. `spire`: under that of a SPIRE server. `cert-manager`: under, or by, an
   * issuer of the cluster's cert-manager. With `attestation.kubernetes` the default is refused unless `singleNode`.
   */
  readonly type: (typeof AUTHORITY_TYPES)[number];
  /**
   * `intermediate`: the CA above signs a CA of this node, which rides out an outage. `per-svid`: it signs each leaf, and no signing
   * key is on the node; for `vault` and `cert-manager` only. Default `intermediate`.
   */
  readonly tier: 'intermediate' | 'per-svid';
  /**
   * Lifetime of the signing certificate (the root of `embedded`, the node CA of `files`); 1m to 87600h, and at least twice the
   * `x509.ttl` and every entry's `x509Ttl`, so that an SVID signed in its first half never outlives it. Default 24h.
   */
  readonly ttlMs: number;
  /** This is the only node of the cluster: as many roots as nodes would otherwise share one trust domain. Default false. */
  readonly singleNode: boolean;
  /**
   * `uri`: the node CA's certificate says that it may sign for the trust domain only (RFC 5280 §4.2.1.10). Default `none`: some TLS
   * stacks refuse every chain with such a constraint.
   */
  readonly nameConstraint: 'none' | 'uri';
  /** Take a node CA whose certificate says neither that it signs no further CAs nor, where asked for, its names. Default false. */
  readonly acceptUnconstrainedCA: boolean;
  /** Set exactly for `type: files`. */
  readonly files: FilesConfig | undefined;
  /** Set for `type: vault`, and where `jwt.signer` is `transit`. */
  readonly vault: VaultConfig | undefined;
  /** Set exactly for `type: step-ca`. */
  readonly stepCa: StepCaConfig | undefined;
  /** Set exactly for `type: spire`. */
  readonly spire: SpireConfig | undefined;
  /** Set exactly for `type: cert-manager`. */
  readonly certManager: CertManagerConfig | undefined;
}

/** A SPIRE server, for which this node is a downstream server. */
export interface SpireConfig {
  /** Of its TCP endpoint: `spire-server.spire:8081`. */
  readonly address: { readonly host: string; readonly port: number };
  /** PEM file with its trust bundle, for the first contact: absolute. */
  readonly bundleFile: string;
  readonly attestation: SpireAttestationConfig;
  /** How often bundle and entry are looked at; 1s to 1m. Default 5s, as SPIRE's agents do. */
  readonly syncMs: number;
}

/** By which node attestor this node joins. Files are read again each time. */
export interface SpireAttestationConfig {
  readonly method: 'join_token' | 'x509pop' | 'k8s_psat';
  /** `k8s_psat`: the name that the server's attestor has for this cluster. Not one that SPIRE agents use on the same nodes. */
  readonly cluster: string | undefined;
  /**
   * `join_token`: the token. It is used once; what the node has got for it is kept in `privateDir`. `k8s_psat`: a projected token of
   * the service account, for the audience of the server.
   */
  readonly tokenFile: string | undefined;
  /** `x509pop`: the certificate with those between it and its root, and its key. Not those of a SPIRE agent. */
  readonly certificate: string | undefined;
  readonly key: string | undefined;
}

/** An issuer of the cluster's cert-manager. The API server is that of `kubernetes`. */
export interface CertManagerConfig {
  /** Where CertificateRequests are made. */
  readonly namespace: string;
  readonly issuer: {
    readonly name: string;
    /** Default `Issuer`, in the same namespace. */
    readonly kind: string;
    /** Default `cert-manager.io`. */
    readonly group: string;
  };
  /** Files with the trust anchors: absolute. At least one, or a ConfigMap: what cert-manager answers is no root because it says so. */
  readonly roots: readonly string[];
  /** A ConfigMap with the trust anchors in PEM. `namespace`: default that of the requests. `key`: default `ca.crt`. */
  readonly rootsConfigMap: { readonly namespace: string; readonly name: string; readonly key: string } | undefined;
}

/** A Vault or OpenBao server. */
export interface VaultConfig {
  /** An https URL without path; http on the loopback only. */
  readonly address: string;
  /** Default '': none. */
  readonly namespace: string;
  /** Roots of its certificate: absolute. Default: those of Node.js. */
  readonly caFile: string | undefined;
  /** The name in its certificate. Default: that of the address. */
  readonly serverName: string | undefined;
  readonly auth: VaultAuthConfig;
  readonly pki: VaultPkiConfig;
}

/** How the agent logs in. Files are read again each time. */
export interface VaultAuthConfig {
  readonly method: 'kubernetes' | 'jwt' | 'approle' | 'cert' | 'token';
  /** Where the method is mounted. Default: its name. */
  readonly mount: string;
  /** `kubernetes`, `jwt`, `cert`: the role. */
  readonly role: string | undefined;
  /** `kubernetes`, `jwt`: the token to log in with. Default: the service account's. */
  readonly jwtFile: string;
  /** `approle` */
  readonly roleIdFile: string | undefined;
  readonly secretIdFile: string | undefined;
  /** `cert` */
  readonly certificate: string | undefined;
  readonly key: string | undefined;
  /** `token` */
  readonly tokenFile: string | undefined;
}

export interface VaultPkiConfig {
  /** Default `pki`. */
  readonly mount: string;
  /** The issuer that signs, by ID or name. Default `default`. */
  readonly issuer: string;
  /** `per-svid`: the role that leaves are signed by. */
  readonly role: string | undefined;
  /** Files with further trust anchors. Default: none. */
  readonly roots: readonly string[];
}

/** A smallstep CA. Either `caFile` or `fingerprint` is set. */
export interface StepCaConfig {
  /** An https URL without path. */
  readonly address: string;
  /** Roots of its certificate: absolute. They alone are believed for the connection. */
  readonly caFile: string | undefined;
  /** SHA-256 of one of its roots, as `step certificate fingerprint` writes it. */
  readonly fingerprint: string | undefined;
  /** The name in its certificate. Default: that of the address. */
  readonly serverName: string | undefined;
  /**
   * Node CAs renew themselves over mutual TLS, without a token: under the same name, and as the template was when the first one was
   * made. Default: with `x5c`, whose certificate need not be good any more then.
   */
  readonly renew: boolean;
  /** Files with further trust anchors. Default: none. */
  readonly roots: readonly string[];
  readonly provisioner: StepCaProvisionerConfig;
}

/** How the agent proves itself. Files are read again each time. */
export interface StepCaProvisionerConfig {
  readonly type: 'jwk' | 'x5c';
  readonly name: string;
  /** Its private key (`jwk`: PEM, JWK or JWE; default: the encrypted one that step-ca keeps), or that of the certificate (`x5c`). */
  readonly key: string | undefined;
  /** What opens an encrypted key. */
  readonly passwordFile: string | undefined;
  /** `x5c`: a certificate under the provisioner's roots, then what lies between. */
  readonly certificate: string | undefined;
}

/** A CA in PEM files. They are read again when they change. */
export interface FilesConfig {
  /** The CA's certificate, then those between it and its root: absolute. */
  readonly certificate: string;
  /** Its private key: absolute. */
  readonly key: string;
  /** Further trust anchors, or the one above an intermediate: absolute. Default: none. */
  readonly roots: readonly string[];
}

/** How callers are recognised. */
export interface AttestationConfig {
  readonly unix: {
    /** Also yield `unix:path` and `unix:sha256`, which costs a read of the caller's executable. Default false. */
    readonly path: boolean;
  };
  readonly kubernetes: {
    /** Recognise pods. Default false. */
    readonly enabled: boolean;
    /**
     * The cgroup under which the kubelet keeps its pods: `/kubepods`, `/kubepods.slice`. Default: learnt from the agent's own pod, or
     * from the cgroups that this node has.
     */
    readonly cgroupRoot: string | undefined;
    /** How long a caller waits for its pod to become known; 100ms to 1m. Default 5s. */
    readonly podTimeoutMs: number;
  };
}

/** Where the pods of this node are learnt from. */
export interface KubernetesConfig {
  /** The name of this node's Node object. Required with `attestation.kubernetes`; undefined without. */
  readonly nodeName: string | undefined;
  /** A kubeconfig file: absolute. Default: the pod's service account. */
  readonly kubeconfig: string | undefined;
  /** `api`: a watch at the API server, with the kubelet asked where that is away. `kubelet`: the kubelet's list. Default `api`. */
  readonly source: 'api' | 'kubelet';
  /** The kubelet of this node; undefined unless named here or the source. */
  readonly kubelet: KubeletConfig | undefined;
}

export interface KubeletConfig {
  /** Default 127.0.0.1, which a pod reaches only with hostNetwork: name the node's address. */
  readonly host: string;
  /** 1 to 65535, default 10250. */
  readonly port: number;
  /** The name in its serving certificate. Default: the node's name. */
  readonly serverName: string | undefined;
  /** The CA of its serving certificate: absolute. Default: the cluster's. */
  readonly caFile: string | undefined;
}

/** Which pods own which identity. */
export interface RegistrationConfig {
  readonly defaultRule: {
    /** Gives pods that no other rule selects an identity by their service account. Default true. */
    readonly enabled: boolean;
    /** The path of that identity, or the whole ID. Default `/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}`. */
    readonly template: string;
    /** Only pods of these namespaces. Default: all. */
    readonly namespaces: readonly string[];
  };
  /** Pods of these namespaces own nothing by any rule. Default: none. */
  readonly excludeNamespaces: readonly string[];
  /** Follow the ClusterSPIFFEID and ClusterStaticEntry objects of the cluster. Default true. */
  readonly customResources: boolean;
  /** Only rules of this class, and those without one if `watchClassless`. Default ''. */
  readonly className: string;
  /** Default true. */
  readonly watchClassless: boolean;
  /** Report what the rules select on this node, and take part in writing it to their status. Default true. */
  readonly status: boolean;
}

/** Where the trust bundle is told beside the Workload API. Needs `attestation.kubernetes`; one agent of the cluster writes. */
export interface TrustConfig {
  readonly publish: {
    /** Undefined: none. */
    readonly configMap: { readonly namespace: string | undefined; readonly name: string } | undefined;
    /** A ClusterTrustBundle, where the cluster has them. Default false. */
    readonly clusterTrustBundle: boolean;
  };
}

/** What monitoring reads. */
export interface TelemetryConfig {
  /** Where `/metrics`, `/live` and `/ready` are served over HTTP: `127.0.0.1:9464`, `[::]:9464`. Default: nowhere. */
  readonly address: { readonly host: string; readonly port: number } | undefined;
}

/** A line for each identity that is given or refused. */
export interface AuditConfig {
  /** A file (absolute), or `-` for standard output. Default: none. */
  readonly path: string | undefined;
}

/** The operator's socket. */
export interface AdminConfig {
  /** Absolute, at most 98 bytes, for the agent's user and root only. Default: `admin.sock` in `privateDir`. */
  readonly socketPath: string;
}

/** What is logged. */
export interface LogConfig {
  /** `debug`, `info`, `warn`, `error` or `silent`. Default `info`. */
  readonly level: LogLevel;
}

/**
 * What callers may use up. An owner is one bucket of callers (a user, later a pod): it can exhaust only its own share, never the
 * agent. A rate is per second and allows a burst of twice its value. Times are written as durations, without `Ms`.
 */
export interface Limits {
  /** Open connections in all. 1 to 65536, default 8192: each holds a descriptor and some 6 KiB, so this is about 50 MB. */
  readonly connections: number;
  /** Open connections of one owner. 1 to 65536, default 2048: a quarter, so that three greedy owners leave room for the rest. */
  readonly connectionsPerOwner: number;
  /** New connections of one owner per second. 1 to 1000000, default 5000: above the 4,500 that clients reached when tried. */
  readonly connectionRatePerOwner: number;
  /** Open calls in all, streams included. 1 to 65536, default 8192: one stream for each connection. */
  readonly calls: number;
  /** Open calls of one owner. 1 to 65536, default 2048: thousands of calls from one owner have exhausted an unbounded heap. */
  readonly callsPerOwner: number;
  /** New calls of one owner per second. 1 to 1000000, default 10000: about half of what two cores answer. */
  readonly callRatePerOwner: number;
  /** MAX_CONCURRENT_STREAMS (RFC 9113 §6.5.2). 1 to 65536, default 256: above the 100 that RFC 9113 recommends as the least. */
  readonly callsPerConnection: number;
  /** From accept to the first complete HEADERS. 10ms to 5m, default 5s: a local client needs milliseconds. */
  readonly preludeTimeoutMs: number;
  /** From HEADERS to the complete request. 10ms to 5m, default 10s: requests are small, and a slow one holds a call. */
  readonly requestTimeoutMs: number;
  /**
   * From the headers of a unary call until its answer is read; then its connection is closed. 10ms to 1h, default 60s: long enough for
   * a paused debugger or a swap storm. A stream that is not read costs one message and may stay.
   */
  readonly stalledTimeoutMs: number;
  /** How long a call waits for an agent that is starting. 0s to 5m, default 10s: spares clients a round of back-off. */
  readonly readyTimeoutMs: number;
  /** Header block of one call. 1024 to 131072, default 16384: what HTTP servers commonly take. */
  readonly headerBytes: number;
  /** One request message. 1024 to 4194304, default 131072: holds the largest token, or the most and longest audiences. */
  readonly messageBytes: number;
  /** Audiences of one JWT-SVID. 1 to 1024, default 32: each makes the token longer and widens where it can be replayed. */
  readonly audiences: number;
  /** One audience. 1 to 65536, default 2048: the length of the longest SPIFFE ID (SPIFFE-ID §2.3). */
  readonly audienceBytes: number;
  /** A token to validate. 1024 to 1048576, default 65536: larger than the header sizes in which tokens travel. */
  readonly tokenBytes: number;
  /** X.509-SVIDs held at once. 1 to 100000, default 4096: each holds a key, a chain and an encoded response, a few KiB. */
  readonly identities: number;
  /** JWT-SVIDs held for one identity. 1 to 65536, default 256: callers choose audiences, so they choose how many there are. */
  readonly jwtPerIdentity: number;
}

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;

/** What holds where the file says nothing. `trustDomain` has no default. */
export const CONFIG_DEFAULTS: Omit<Config, 'trustDomain'> = deepFreeze({
  socketPath: '/run/signet/public/api.sock',
  dataDir: '/var/lib/signet',
  privateDir: '/run/signet/private',
  clusterName: '',
  clusterDomain: 'cluster.local',
  onSuperseded: 'exit',
  kubernetes: { nodeName: undefined, kubeconfig: undefined, source: 'api', kubelet: undefined },
  x509: { ttlMs: HOUR, keyType: 'ec-p256' },
  jwt: { ttlMs: 5 * MINUTE, issuer: undefined, signer: 'node', transit: undefined, propagationMs: 2 * SECOND },
  authority: {
    type: 'embedded',
    tier: 'intermediate',
    ttlMs: 24 * HOUR,
    singleNode: false,
    nameConstraint: 'none',
    acceptUnconstrainedCA: false,
    files: undefined,
    vault: undefined,
    stepCa: undefined,
    spire: undefined,
    certManager: undefined,
  },
  attestation: { unix: { path: false }, kubernetes: { enabled: false, cgroupRoot: undefined, podTimeoutMs: 5 * SECOND } },
  registration: {
    defaultRule: { enabled: true, template: '/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}', namespaces: [] },
    excludeNamespaces: [],
    customResources: true,
    className: '',
    watchClassless: true,
    status: true,
  },
  trust: { publish: { configMap: undefined, clusterTrustBundle: false } },
  entries: [],
  limits: {
    connections: 8_192,
    connectionsPerOwner: 2_048,
    connectionRatePerOwner: 5_000,
    calls: 8_192,
    callsPerOwner: 2_048,
    callRatePerOwner: 10_000,
    callsPerConnection: 256,
    preludeTimeoutMs: 5 * SECOND,
    requestTimeoutMs: 10 * SECOND,
    stalledTimeoutMs: MINUTE,
    readyTimeoutMs: 10 * SECOND,
    headerBytes: 16_384,
    messageBytes: 131_072,
    audiences: 32,
    audienceBytes: 2_048,
    tokenBytes: 65_536,
    identities: 4_096,
    jwtPerIdentity: 256,
  },
  withdrawalDelayMs: 10 * SECOND,
  log: { level: 'info' },
  telemetry: { address: undefined },
  audit: { path: undefined },
  admin: { socketPath: '/run/signet/private/admin.sock' },
});

/** Both ends are allowed. */
export interface Range {
  readonly min: number;
  readonly max: number;
}

/** Durations in milliseconds. */
export const TTL_RANGES = {
  x509: { min: 10 * SECOND, max: 8_760 * HOUR },
  jwt: { min: 10 * SECOND, max: 24 * HOUR },
  authority: { min: MINUTE, max: 87_600 * HOUR },
  withdrawalDelay: { min: 0, max: HOUR },
  pod: { min: 100, max: MINUTE },
  propagation: { min: 0, max: MINUTE },
  sync: { min: SECOND, max: MINUTE },
} as const satisfies Record<string, Range>;

/** The reasons are at the fields of `Limits`. */
export const LIMIT_RANGES = {
  connections: { min: 1, max: 65_536 },
  connectionsPerOwner: { min: 1, max: 65_536 },
  connectionRatePerOwner: { min: 1, max: 1_000_000 },
  calls: { min: 1, max: 65_536 },
  callsPerOwner: { min: 1, max: 65_536 },
  callRatePerOwner: { min: 1, max: 1_000_000 },
  callsPerConnection: { min: 1, max: 65_536 },
  preludeTimeoutMs: { min: 10, max: 5 * MINUTE },
  requestTimeoutMs: { min: 10, max: 5 * MINUTE },
  stalledTimeoutMs: { min: 10, max: HOUR },
  readyTimeoutMs: { min: 0, max: 5 * MINUTE },
  headerBytes: { min: 1_024, max: 131_072 },
  messageBytes: { min: 1_024, max: 4_194_304 },
  audiences: { min: 1, max: 1_024 },
  audienceBytes: { min: 1, max: 65_536 },
  tokenBytes: { min: 1_024, max: 1_048_576 },
  identities: { min: 1, max: 100_000 },
  jwtPerIdentity: { min: 1, max: 65_536 },
} as const satisfies Record<keyof Limits, Range>;

/** Freezes `value` and all that it holds. */
export function deepFreeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value;
  for (const member of Object.values(value)) deepFreeze(member);
  return Object.freeze(value);
}
