import { ADMIN_OPTIONS } from './admin-options.ts';
import { CLIENT_OPTIONS, LOCAL_OPTIONS, type Option, type Options } from './arguments.ts';
import type { Command } from './command.ts';

const BUNDLE_OPTIONS: Options = {
  format: { type: 'string', short: 'f', value: 'FORMAT', help: 'print a document: pem, jwks or spiffe' },
  'trust-domain': { type: 'string', value: 'NAME', help: 'only this trust domain' },
  ...CLIENT_OPTIONS,
};

const FORCE: Option = { type: 'boolean', help: 'although not everybody can have the new key yet' };

const AUTHORITY_OPTIONS: Options = {
  'dry-run': { type: 'boolean', help: 'only tell what would happen' },
  ...ADMIN_OPTIONS,
};

/** Every command, in the order of the list in `signet --help`. */
export const COMMANDS: Readonly<Record<string, Command>> = {
  'fetch x509': {
    usage: '[--write DIR] [options]',
    summary: 'show the X509-SVIDs of this process, or write them to files',
    details:
      'Private keys are never shown. --write makes svid.N.pem, svid.N.key (mode 0600), bundle.N.pem and\n' +
      'federated_bundle.N.M.pem in DIR, all exchanged in one step; N counts from 0, the default identity.',
    options: { write: { type: 'string', value: 'DIR', help: 'write certificates, keys and bundles there' }, ...CLIENT_OPTIONS },
    positionals: [0, 0],
    examples: [
      'signet fetch x509',
      'signet fetch x509 --socket /run/signet/public/api.sock --write /run/my-service/tls',
      "signet fetch x509 --output json | jq -r '.svids[0].spiffe_id'",
    ],
    load: async () => (await import('./fetch-x509.ts')).fetchX509,
  },
  'fetch jwt': {
    usage: '--audience A [--audience B] [--id SPIFFEID] [options]',
    summary: 'get JWT-SVIDs for one or more audiences',
    options: {
      audience: { type: 'string', multiple: true, short: 'a', value: 'A', help: 'whom the token is for' },
      id: { type: 'string', value: 'SPIFFEID', help: 'only for this identity; default: for all of this process' },
      ...CLIENT_OPTIONS,
    },
    positionals: [0, 0],
    examples: [
      'signet fetch jwt --audience spiffe://example.org/db',
      "signet fetch jwt --audience vault --output json | jq -r '.svids[0].token'",
    ],
    load: async () => (await import('./fetch-jwt.ts')).fetchJwt,
  },
  'fetch bundle': {
    usage: '[--format pem|jwks|spiffe] [--trust-domain NAME] [options]',
    summary: 'show the trust bundles, or print one as a document',
    details:
      'A document is about one trust domain, by default the own one: pem holds its X.509 authorities, jwks its\n' +
      'JWT keys (RFC 7517), spiffe both (SPIFFE bundle).',
    options: BUNDLE_OPTIONS,
    positionals: [0, 0],
    examples: [
      'signet fetch bundle',
      'signet fetch bundle --format pem > bundle.pem',
      'signet fetch bundle --format spiffe --trust-domain partner.test',
    ],
    load: async () => (await import('./fetch-bundle.ts')).fetchBundle,
  },
  'bundle show': {
    usage: '[--format spiffe|pem|jwks] [--trust-domain NAME] [options]',
    summary: 'the same as fetch bundle, for those who look after trust',
    details:
      'Without a format: the bundles of all trust domains that this process may see. A document is about one trust domain, by\n' +
      'default the own one: spiffe holds X.509 authorities and JWT keys (SPIFFE bundle), pem the former, jwks the latter.\n' +
      'Sequence number and refresh hint are not in the Workload API, so they are left out.',
    options: BUNDLE_OPTIONS,
    positionals: [0, 0],
    examples: ['signet bundle show', 'signet bundle show --format spiffe > example.org.json'],
    load: async () => (await import('./fetch-bundle.ts')).fetchBundle,
  },
  watch: {
    usage: '[--count N] [options]',
    summary: 'show each X.509 update as it comes',
    details: 'Reconnects until it is interrupted. With --output json each update is one line.',
    options: {
      ...CLIENT_OPTIONS,
      count: { type: 'string', short: 'n', value: 'N', help: 'end after N updates' },
      timeout: { type: 'string', value: 'DURATION', help: 'longest wait for the first update; default: for ever' },
    },
    positionals: [0, 0],
    examples: ['signet watch', "signet watch --count 2 --output json | jq -r '.svids[0].not_after'"],
    load: async () => (await import('./watch.ts')).watch,
  },
  validate: {
    usage: '--audience A TOKEN [options]',
    summary: 'have the agent verify a JWT-SVID',
    details:
      'TOKEN "-" is read from standard input, which keeps it out of the list of processes and of the history of the shell.',
    options: { audience: { type: 'string', short: 'a', value: 'A', help: 'whom the token must be for' }, ...CLIENT_OPTIONS },
    positionals: [1, 1],
    examples: ['signet validate --audience spiffe://example.org/db - < token.jwt'],
    load: async () => (await import('./validate.ts')).validate,
  },
  healthcheck: {
    usage: '[options]',
    summary: 'ask the agent whether it serves',
    options: CLIENT_OPTIONS,
    positionals: [0, 0],
    examples: ['signet healthcheck --socket /run/signet/public/api.sock --timeout 2s'],
    load: async () => (await import('./healthcheck.ts')).healthcheck,
  },
  explain: {
    usage: '--pid N | --pod NAMESPACE/NAME [--container NAME] | --rules FILE [options]',
    summary: 'tell which identities a process or a pod gets, and why',
    details:
      'Asks the agent of this node on its admin socket, as root. --pid counts as the agent sees it: on the node, not in a\n' +
      'container. --rules tells what ClusterSPIFFEID and ClusterStaticEntry documents in FILE ("-": standard input) would\n' +
      'change for the pods of this node; a document with "entries" stands for all entries of the configuration. Nothing is\n' +
      'applied. Ends with 4 when there is no identity, and with 2 when a rule is refused.',
    options: {
      pid: { type: 'string', short: 'p', value: 'N', help: 'explain this process' },
      pod: { type: 'string', value: 'NS/NAME', help: 'explain this pod' },
      container: { type: 'string', short: 'c', value: 'NAME', help: 'of the pod; default: its only one' },
      rules: { type: 'string', value: 'FILE', help: 'explain what these rules would change' },
      ...ADMIN_OPTIONS,
    },
    positionals: [0, 0],
    examples: [
      'signet explain --pid 4242',
      'signet explain --pod default/web-0 --container web',
      'signet explain --rules web.clusterspiffeid.yaml',
      "signet explain --pid 4242 --output json | jq -r '.identities[].spiffe_id'",
    ],
    load: async () => (await import('./explain.ts')).explain,
  },
  rules: {
    usage: '[options]',
    summary: 'list the rules that the agent follows, with what they select',
    options: ADMIN_OPTIONS,
    positionals: [0, 0],
    examples: ['signet rules', "signet rules --output json | jq -r '.rules[] | select(.problem) | .name'"],
    load: async () => (await import('./rules.ts')).rules,
  },
  status: {
    usage: '[options]',
    summary: 'tell how the agent is: readiness, authority, pods, identities',
    options: ADMIN_OPTIONS,
    positionals: [0, 0],
    examples: ['signet status', 'signet status --output json | jq .reasons'],
    load: async () => (await import('./status.ts')).status,
  },
  'authority show': {
    usage: '[options]',
    summary: 'list the keys that sign, have signed and will sign',
    details:
      'prepared: in the bundle, signs later; active: signs; old: signs no more, but what it has signed is valid; tainted: not to\n' +
      'be relied on any more. Keys follow one another by themselves; prepare, activate, taint and revoke do it by hand.',
    options: ADMIN_OPTIONS,
    positionals: [0, 0],
    examples: ['signet authority show', "signet authority show --output json | jq -r '.keys[] | select(.state == \"old\") | .id'"],
    load: async () => (await import('./authority.ts')).showAuthority,
  },
  'authority prepare': {
    usage: 'x509|jwt [options]',
    summary: 'make a successor of the key that signs, and publish it',
    details:
      'It does not sign before it is activated. Where the root is not the agent\'s own (authority.type files, vault, spire), the new\n' +
      'root is added there instead.',
    options: AUTHORITY_OPTIONS,
    positionals: [1, 1],
    examples: ['signet authority prepare x509', 'signet authority prepare jwt --dry-run'],
    load: async () => (await import('./authority.ts')).prepareAuthority,
  },
  'authority activate': {
    usage: 'x509|jwt [--force] [options]',
    summary: 'have the prepared key sign from now on',
    details:
      'Refused until it has been in the bundle long enough for everybody to have it. The key before it stays in the bundle, so\n' +
      'that what it has signed is valid to its end.',
    options: { force: FORCE, ...AUTHORITY_OPTIONS },
    positionals: [1, 1],
    examples: ['signet authority activate x509', 'signet authority activate jwt --output json'],
    load: async () => (await import('./authority.ts')).activateAuthority,
  },
  'authority taint': {
    usage: 'ID [--force] [options]',
    summary: 'give a key up: it never signs again, and what it has signed is replaced at once',
    details:
      'SVIDs under it are replaced within seconds; a minute later it leaves the bundle. For the key that signs a successor must\n' +
      'be prepared; a node CA is replaced by another from the CA above. An ID that begins with "-" is written after "--".',
    options: { force: FORCE, ...AUTHORITY_OPTIONS },
    positionals: [1, 1],
    examples: ['signet authority taint 3f9c1a77', 'signet authority taint 3f9c1a77 --dry-run', 'signet authority taint -- -QxV8t'],
    load: async () => (await import('./authority.ts')).taintAuthority,
  },
  'authority revoke': {
    usage: 'ID [options]',
    summary: 'take a tainted key out of the bundle at once',
    options: AUTHORITY_OPTIONS,
    positionals: [1, 1],
    examples: ['signet authority revoke 3f9c1a77'],
    load: async () => (await import('./authority.ts')).revokeAuthority,
  },
  'config check': {
    usage: 'FILE [options]',
    summary: "check a configuration of the agent, without starting it",
    options: LOCAL_OPTIONS,
    positionals: [1, 1],
    examples: ['signet config check /etc/signet/signet.yaml'],
    load: async () => (await import('./config-check.ts')).configCheck,
  },
  version: {
    usage: '[options]',
    summary: 'show the version',
    options: LOCAL_OPTIONS,
    positionals: [0, 0],
    examples: ['signet version', 'signet version --output json'],
    load: async () => (await import('./version.ts')).version,
  },
};
