import { optional } from 'valibot';
import type { LogLevel } from '../log.ts';
import { KEY_TYPES } from '../spiffe/key-type.ts';
import {
  AUTHORITY_TYPES,
  CONFIG_DEFAULTS,
  LIMIT_RANGES,
  TTL_RANGES,
  type AttestationConfig,
  type AuthorityConfig,
  type CertManagerConfig,
  type Config,
  type JwtConfig,
  type KubernetesConfig,
  type Limits,
  type SpireConfig,
  type StepCaConfig,
  type TrustConfig,
  type VaultConfig,
} from './config.ts';
import { formatDuration } from './duration.ts';
import {
  readAddress,
  readAuditPath,
  readCgroupRoot,
  readClusterName,
  readConfigMapKey,
  readDataDir,
  readFile,
  readHost,
  readKubernetesKind,
  readKubernetesName,
  readDnsName,
  readHint,
  readHostAndPort,
  readIssuer,
  readSelector,
  readSha256,
  readSocketPath,
  readStepCaAddress,
  readStepCaName,
  readTemplate,
  readTrustDomain,
  readVaultAddress,
  readVaultName,
  readVaultNamespace,
  readVaultPath,
  readWorkloadId,
} from './texts.ts';
import { choice, duration, flag, leaf, list, mapping, required, requiredMapping, whole, type Output } from './values.ts';

/** Entries are ordered by it; the bounds are those of a 32-bit integer, so that it fits wherever it may be reported. */
const PRIORITIES = { min: -2_147_483_648, max: 2_147_483_647 };

/** The same as in `log.ts`, which loads the logger: 10 MB that a command which only checks a file does without. */
export const LEVELS = ['debug', 'info', 'warn', 'error', 'silent'] as const satisfies readonly LogLevel[];

const { x509, jwt, authority, attestation, registration, kubernetes, limits, log } = CONFIG_DEFAULTS;

const PORTS = { min: 1, max: 65_535 };
const KUBELET_PORT = 10_250;

/** A limit that is counted, under its name in `Limits`. */
function count(name: keyof Limits) {
  return optional(whole(LIMIT_RANGES[name]), limits[name]);
}

/** A limit in time, under its name in `Limits`. */
function time(name: keyof Limits) {
  return optional(duration(LIMIT_RANGES[name]), formatDuration(limits[name]));
}

const ENTRY_SCHEMA = requiredMapping({
  id: required(leaf(readWorkloadId)),
  selectors: list(leaf(readSelector), 'selectors'),
  x509Ttl: optional(duration(TTL_RANGES.x509)),
  jwtTtl: optional(duration(TTL_RANGES.jwt)),
  dnsNames: list(leaf(readDnsName), 'DNS names'),
  hint: optional(leaf(readHint), ''),
  priority: optional(whole(PRIORITIES), 0),
});

const VAULT_SCHEMA = requiredMapping({
  address: required(leaf(readVaultAddress)),
  namespace: optional(leaf(readVaultNamespace), ''),
  caFile: optional(leaf(readFile)),
  serverName: optional(leaf(readDnsName)),
  auth: required(
    requiredMapping({
      method: required(choice(['kubernetes', 'jwt', 'approle', 'cert', 'token'])),
      mount: optional(leaf(readVaultPath)),
      role: optional(leaf(readVaultName)),
      jwtFile: optional(leaf(readFile), '/var/run/secrets/kubernetes.io/serviceaccount/token'),
      roleIdFile: optional(leaf(readFile)),
      secretIdFile: optional(leaf(readFile)),
      certificate: optional(leaf(readFile)),
      key: optional(leaf(readFile)),
      tokenFile: optional(leaf(readFile)),
    }),
  ),
  pki: mapping({
    mount: optional(leaf(readVaultPath), 'pki'),
    issuer: optional(leaf(readVaultName), 'default'),
    role: optional(leaf(readVaultName)),
    roots: list(leaf(readFile), 'files'),
  }),
});

const STEP_CA_SCHEMA = requiredMapping({
  address: required(leaf(readStepCaAddress)),
  caFile: optional(leaf(readFile)),
  fingerprint: optional(leaf(readSha256)),
  serverName: optional(leaf(readDnsName)),
  renew: optional(flag),
  roots: list(leaf(readFile), 'files'),
  provisioner: required(
    requiredMapping({
      type: required(choice(['jwk', 'x5c'])),
      name: required(leaf(readStepCaName)),
      key: optional(leaf(readFile)),
      passwordFile: optional(leaf(readFile)),
      certificate: optional(leaf(readFile)),
    }),
  ),
});

const SPIRE_SCHEMA = requiredMapping({
  address: required(leaf(readHostAndPort)),
  bundleFile: required(leaf(readFile)),
  attestation: required(
    requiredMapping({
      method: required(choice(['join_token', 'x509pop', 'k8s_psat'])),
      cluster: optional(leaf(readClusterName)),
      tokenFile: optional(leaf(readFile)),
      certificate: optional(leaf(readFile)),
      key: optional(leaf(readFile)),
    }),
  ),
  sync: optional(duration(TTL_RANGES.sync), '5s'),
});

const CERT_MANAGER_SCHEMA = requiredMapping({
  namespace: required(leaf(readKubernetesName)),
  issuer: required(
    requiredMapping({
      name: required(leaf(readKubernetesName)),
      kind: optional(leaf(readKubernetesKind), 'Issuer'),
      group: optional(leaf(readKubernetesName), 'cert-manager.io'),
    }),
  ),
  roots: list(leaf(readFile), 'files'),
  rootsConfigMap: optional(
    requiredMapping({
      namespace: optional(leaf(readKubernetesName)),
      name: required(leaf(readKubernetesName)),
      key: optional(leaf(readConfigMapKey), 'ca.crt'),
    }),
  ),
});

/** The keys of the file, the form of each value, and what holds where it is left out. Rules over several values: `rules.ts`. */
export const CONFIG_SCHEMA = requiredMapping({
  trustDomain: required(leaf(readTrustDomain)),
  socketPath: optional(leaf(readSocketPath), CONFIG_DEFAULTS.socketPath),
  dataDir: optional(leaf(readDataDir), CONFIG_DEFAULTS.dataDir),
  privateDir: optional(leaf(readDataDir), CONFIG_DEFAULTS.privateDir),
  clusterName: optional(leaf(readClusterName), CONFIG_DEFAULTS.clusterName),
  clusterDomain: optional(leaf(readDnsName), CONFIG_DEFAULTS.clusterDomain),
  onSuperseded: optional(choice(['exit', 'wait']), CONFIG_DEFAULTS.onSuperseded),
  kubernetes: mapping({
    nodeName: optional(leaf(readKubernetesName)),
    kubeconfig: optional(leaf(readFile)),
    source: optional(choice(['api', 'kubelet']), kubernetes.source),
    kubelet: optional(
      requiredMapping({
        host: optional(leaf(readHost), '127.0.0.1'),
        port: optional(whole(PORTS), KUBELET_PORT),
        serverName: optional(leaf(readDnsName)),
        caFile: optional(leaf(readFile)),
      }),
    ),
  }),
  x509: mapping({
    ttl: optional(duration(TTL_RANGES.x509), formatDuration(x509.ttlMs)),
    keyType: optional(choice(KEY_TYPES), x509.keyType),
  }),
  jwt: mapping({
    ttl: optional(duration(TTL_RANGES.jwt), formatDuration(jwt.ttlMs)),
    issuer: optional(leaf(readIssuer)),
    signer: optional(choice(['node', 'transit']), jwt.signer),
    transit: optional(requiredMapping({ mount: optional(leaf(readVaultPath), 'transit'), key: required(leaf(readVaultName)) })),
    propagation: optional(duration(TTL_RANGES.propagation), formatDuration(jwt.propagationMs)),
  }),
  authority: mapping({
    type: optional(choice(AUTHORITY_TYPES), authority.type),
    tier: optional(choice(['intermediate', 'per-svid']), authority.tier),
    ttl: optional(duration(TTL_RANGES.authority), formatDuration(authority.ttlMs)),
    singleNode: optional(flag, authority.singleNode),
    nameConstraint: optional(choice(['none', 'uri']), authority.nameConstraint),
    acceptUnconstrainedCA: optional(flag, authority.acceptUnconstrainedCA),
    vault: optional(VAULT_SCHEMA),
    stepCa: optional(STEP_CA_SCHEMA),
    spire: optional(SPIRE_SCHEMA),
    certManager: optional(CERT_MANAGER_SCHEMA),
    files: optional(
      requiredMapping({
        certificate: required(leaf(readFile)),
        key: required(leaf(readFile)),
        roots: list(leaf(readFile), 'files'),
      }),
    ),
  }),
  attestation: mapping({
    unix: mapping({ path: optional(flag, attestation.unix.path) }),
    kubernetes: mapping({
      enabled: optional(flag, attestation.kubernetes.enabled),
      cgroupRoot: optional(leaf(readCgroupRoot)),
      podTimeout: optional(duration(TTL_RANGES.pod), formatDuration(attestation.kubernetes.podTimeoutMs)),
    }),
  }),
  registration: mapping({
    defaultRule: mapping({
      enabled: optional(flag, registration.defaultRule.enabled),
      template: optional(leaf(readTemplate), registration.defaultRule.template),
      namespaces: list(leaf(readKubernetesName), 'namespaces'),
    }),
    excludeNamespaces: list(leaf(readKubernetesName), 'namespaces'),
    customResources: optional(flag, registration.customResources),
    className: optional(leaf(readClusterName), registration.className),
    watchClassless: optional(flag, registration.watchClassless),
    status: optional(flag, registration.status),
  }),
  trust: mapping({
    publish: mapping({
      configMap: optional(requiredMapping({ namespace: optional(leaf(readKubernetesName)), name: optional(leaf(readKubernetesName), 'signet-bundle') })),
      clusterTrustBundle: optional(flag, CONFIG_DEFAULTS.trust.publish.clusterTrustBundle),
    }),
  }),
  entries: list(ENTRY_SCHEMA, 'entries'),
  limits: mapping({
    connections: count('connections'),
    connectionsPerOwner: count('connectionsPerOwner'),
    connectionRatePerOwner: count('connectionRatePerOwner'),
    calls: count('calls'),
    callsPerOwner: count('callsPerOwner'),
    callRatePerOwner: count('callRatePerOwner'),
    callsPerConnection: count('callsPerConnection'),
    preludeTimeout: time('preludeTimeoutMs'),
    requestTimeout: time('requestTimeoutMs'),
    stalledTimeout: time('stalledTimeoutMs'),
    readyTimeout: time('readyTimeoutMs'),
    headerBytes: count('headerBytes'),
    messageBytes: count('messageBytes'),
    audiences: count('audiences'),
    audienceBytes: count('audienceBytes'),
    tokenBytes: count('tokenBytes'),
    identities: count('identities'),
    jwtPerIdentity: count('jwtPerIdentity'),
  }),
  withdrawalDelay: optional(duration(TTL_RANGES.withdrawalDelay), formatDuration(CONFIG_DEFAULTS.withdrawalDelayMs)),
  log: mapping({ level: optional(choice(LEVELS), log.level) }),
  telemetry: mapping({ address: optional(leaf(readAddress)) }),
  audit: mapping({ path: optional(leaf(readAuditPath)) }),
  admin: mapping({ socketPath: optional(leaf(readSocketPath)) }),
});

/** A file whose every value has passed. */
export type ConfigFile = Output<typeof CONFIG_SCHEMA>;

/** One entry of such a file. */
export type EntryFile = Output<typeof ENTRY_SCHEMA>;

/** The file's values under the names that the program uses. */
export function toConfig(file: ConfigFile): Config {
  const { preludeTimeout, requestTimeout, stalledTimeout, readyTimeout, ...counts } = file.limits;
  return {
    trustDomain: file.trustDomain,
    socketPath: file.socketPath,
    dataDir: file.dataDir,
    privateDir: file.privateDir,
    clusterName: file.clusterName,
    clusterDomain: file.clusterDomain,
    onSuperseded: file.onSuperseded,
    kubernetes: toKubernetes(file.kubernetes),
    x509: { ttlMs: file.x509.ttl, keyType: file.x509.keyType },
    jwt: toJwt(file.jwt),
    authority: toAuthority(file.authority),
    attestation: toAttestation(file.attestation),
    registration: file.registration,
    trust: toTrust(file.trust),
    entries: file.entries.map(({ x509Ttl, jwtTtl, ...entry }) => ({ ...entry, x509TtlMs: x509Ttl, jwtTtlMs: jwtTtl })),
    limits: {
      ...counts,
      preludeTimeoutMs: preludeTimeout,
      requestTimeoutMs: requestTimeout,
      stalledTimeoutMs: stalledTimeout,
      readyTimeoutMs: readyTimeout,
    },
    withdrawalDelayMs: file.withdrawalDelay,
    log: { level: file.log.level },
    telemetry: { address: file.telemetry.address },
    audit: { path: file.audit.path },
    admin: { socketPath: file.admin.socketPath ?? `${file.privateDir}/admin.sock` },
  };
}

function toKubernetes({ nodeName, kubeconfig, source, kubelet }: ConfigFile['kubernetes']): KubernetesConfig {
  const named = kubelet && { host: kubelet.host, port: kubelet.port, serverName: kubelet.serverName, caFile: kubelet.caFile };
  return { nodeName, kubeconfig, source, kubelet: named };
}

function toJwt({ ttl, issuer, signer, transit, propagation }: ConfigFile['jwt']): JwtConfig {
  return { ttlMs: ttl, issuer, signer, transit, propagationMs: propagation };
}

function toAuthority({ ttl, vault, stepCa, spire, certManager, ...rest }: ConfigFile['authority']): AuthorityConfig {
  return {
    ...rest,
    ttlMs: ttl,
    files: rest.files,
    vault: vault && toVault(vault),
    stepCa: stepCa && toStepCa(stepCa),
    spire: spire && toSpire(spire),
    certManager: certManager && toCertManager(certManager),
  };
}

function toStepCa({ caFile, fingerprint, serverName, renew, provisioner, ...rest }: NonNullable<ConfigFile['authority']['stepCa']>): StepCaConfig {
  const { type, name, key, passwordFile, certificate } = provisioner;
  return { ...rest, caFile, fingerprint, serverName, renew: renew ?? type === 'x5c', provisioner: { type, name, key, passwordFile, certificate } };
}

function toSpire({ sync, attestation: { method, cluster, tokenFile, certificate, key }, ...rest }: NonNullable<ConfigFile['authority']['spire']>): SpireConfig {
  return { ...rest, attestation: { method, cluster, tokenFile, certificate, key }, syncMs: sync };
}

function toCertManager({ namespace, issuer, roots, rootsConfigMap: map }: NonNullable<ConfigFile['authority']['certManager']>): CertManagerConfig {
  return { namespace, issuer, roots, rootsConfigMap: map && { namespace: map.namespace ?? namespace, name: map.name, key: map.key } };
}

function toVault({ caFile, serverName, auth, pki, ...rest }: NonNullable<ConfigFile['authority']['vault']>): VaultConfig {
  const { method, mount = method, role, jwtFile, roleIdFile, secretIdFile, certificate, key, tokenFile } = auth;
  return {
    ...rest,
    caFile,
    serverName,
    auth: { method, mount, role, jwtFile, roleIdFile, secretIdFile, certificate, key, tokenFile },
    pki: { mount: pki.mount, issuer: pki.issuer, role: pki.role, roots: pki.roots },
  };
}

function toTrust({ publish: { configMap, clusterTrustBundle } }: ConfigFile['trust']): TrustConfig {
  return { publish: { configMap: configMap && { namespace: configMap.namespace, name: configMap.name }, clusterTrustBundle } };
}

function toAttestation({ unix, kubernetes: { enabled, cgroupRoot, podTimeout } }: ConfigFile['attestation']): AttestationConfig {
  return { unix: { path: unix.path }, kubernetes: { enabled, cgroupRoot, podTimeoutMs: podTimeout } };
}
