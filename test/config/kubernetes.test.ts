import test from 'ava';
import { parseConfig } from '../../src/config/load.ts';
import { problemsOf } from './refusals.ts';

const BASE = 'trustDomain: example.org\n';
const FILES = 'authority: { type: files, files: { certificate: /ca/tls.crt, key: /ca/tls.key } }\n';
const NODE = `${BASE}clusterName: prod\nkubernetes: { nodeName: node1 }\nattestation: { kubernetes: { enabled: true } }\n`;

function refuses(title: string, yaml: string, path: string, found: string, allowed: string): void {
  test(title, (t) => t.deepEqual(problemsOf(yaml), [{ path, found, allowed }]));
}

test('a node of a cluster needs a cluster name, a node name and a CA of the cluster, and that is all', (t) => {
  const config = parseConfig(NODE + FILES, 'signet.yaml', {});
  t.true(config.attestation.kubernetes.enabled);
  t.is(config.kubernetes.nodeName, 'node1');
  t.deepEqual(config.authority.files, { certificate: '/ca/tls.crt', key: '/ca/tls.key', roots: [] });
  t.is(config.admin.socketPath, '/run/signet/private/admin.sock');
});

test('everything that a node of a cluster lacks is told at once', (t) => {
  t.deepEqual(problemsOf(`${BASE}attestation: { kubernetes: { enabled: true } }`).map(({ path }) => path).sort(), [
    'authority.type',
    'clusterName',
    'kubernetes.nodeName',
  ]);
});

refuses(
  'an embedded root is refused on Kubernetes, where each node would make one',
  NODE,
  'authority.type',
  'nothing',
  'one of files, vault, step-ca, spire, cert-manager, with attestation.kubernetes: as many roots as nodes would share one trust domain; a cluster of one node says authority.singleNode: true',
);

test('an embedded root is allowed on the only node of a cluster', (t) => {
  t.deepEqual(problemsOf(`${NODE}authority: { singleNode: true }\n`), []);
});

refuses('the type files needs its files', `${BASE}authority: { type: files }`, 'authority.files', 'nothing', 'the files of the CA: certificate and key');
refuses(
  'files without the type files are refused, since nothing would read them',
  `${BASE}authority: { files: { certificate: /a, key: /b } }`,
  'authority.files',
  '{"certificate":"/a","key":"/b"}',
  'nothing, unless authority.type is files',
);
refuses(
  'a k8s selector is refused where nothing yields it',
  `${BASE}entries: [{ id: spiffe://example.org/a, selectors: ["k8s:ns:default"] }]`,
  'entries[0].selectors[0]',
  '"k8s:ns:default"',
  'k8s selectors only with attestation.kubernetes.enabled: true, else they never match',
);


const FORGEABLE = 'also k8s:ns:<namespace>, such as k8s:ns:shop with k8s:sa:web: any namespace can have a pod with these';
for (const selectors of [['k8s:sa:web'], ['unix:uid:0', 'k8s:pod-label:app:pay']]) {
  refuses(
    `an entry by ${selectors.join(' and ')} is refused, which a pod of any namespace can have`,
    `${NODE}${FILES}entries: [{ id: spiffe://example.org/a, selectors: ${JSON.stringify(selectors)} }]`,
    'entries[0].selectors',
    JSON.stringify(selectors),
    FORGEABLE,
  );
}
test('an entry for a namespace, or for processes of the host, is not for pods of any namespace', (t) => {
  for (const selectors of [['k8s:ns:shop', 'k8s:sa:web'], ['unix:uid:0']]) {
    const entries = `entries: [{ id: spiffe://example.org/a, selectors: ${JSON.stringify(selectors)} }]`;
    t.deepEqual(problemsOf(`${NODE}${FILES}${entries}`), []);
  }
});

const CLUSTER = 'a name of at most 253 letters, digits, dots, dashes and underscores, such as prod-eu1';
for (const name of ['a/b', '..', '.', 'a b', 'x'.repeat(254)]) {
  const found = name.length > 60 ? `"${name.slice(0, 60)}"…` : JSON.stringify(name);
  refuses(`the cluster name ${name.slice(0, 9)} is refused`, `${BASE}clusterName: "${name}"`, 'clusterName', found, CLUSTER);
}

const ADDRESS = 'an IP address and a port such as 127.0.0.1:9464, 0.0.0.0:9464 or [::]:9464';
for (const address of [':9464', '9464', 'localhost:9464', '::1:9464', '127.0.0.1:65536', '127.0.0.1', '[127.0.0.1]:1']) {
  refuses(`the address ${address} is refused`, `${BASE}telemetry: { address: "${address}" }`, 'telemetry.address', JSON.stringify(address), ADDRESS);
}
for (const [address, host, port] of [['127.0.0.1:0', '127.0.0.1', 0], ['[::]:9464', '::', 9_464]] as const) {
  test(`the address ${address} is read`, (t) => {
    t.deepEqual(parseConfig(`${BASE}telemetry: { address: "${address}" }`, 'signet.yaml', {}).telemetry.address, { host, port });
  });
}

const NAME = 'the name of a Kubernetes object such as kube-system';
refuses('the name of a namespace is checked', `${BASE}registration: { excludeNamespaces: [Kube] }`, 'registration.excludeNamespaces[0]', '"Kube"', NAME);
refuses('the name of the node is checked', `${BASE}kubernetes: { nodeName: "a/b" }`, 'kubernetes.nodeName', '"a/b"', NAME);

refuses(
  'an audit file has an absolute path',
  `${BASE}audit: { path: audit.log }`,
  'audit.path',
  '"audit.log"',
  'an absolute path of at most 3840 bytes, or "-" for standard output',
);
test('the audit can go to standard output', (t) => t.is(parseConfig(`${BASE}audit: { path: "-" }`, 'signet.yaml', {}).audit.path, '-'));

test('the admin socket is in the private directory unless it is named', (t) => {
  t.is(parseConfig(`${BASE}privateDir: /p\n`, 'signet.yaml', {}).admin.socketPath, '/p/admin.sock');
  t.is(parseConfig(`${BASE}admin: { socketPath: /a.sock }\n`, 'signet.yaml', {}).admin.socketPath, '/a.sock');
});

test('a kubelet has an address of its own', (t) => {
  const { kubelet } = parseConfig(`${BASE}kubernetes: { kubelet: { host: 10.0.0.1 } }`, 'signet.yaml', {}).kubernetes;
  t.deepEqual(kubelet, { host: '10.0.0.1', port: 10_250, serverName: undefined, caFile: undefined });
});
refuses(
  'the host of the kubelet is checked',
  `${BASE}kubernetes: { kubelet: { host: "http://a" } }`,
  'kubernetes.kubelet.host',
  '"http://a"',
  'a host such as 127.0.0.1, ::1 or node1.example.org',
);

test('a template of the default rule that cannot be read is refused with its place and the nearest name', (t) => {
  t.deepEqual(problemsOf(`${BASE}registration: { defaultRule: { template: "/{{ .Pod.Nmae }}" } }`), [
    {
      path: 'registration.defaultRule.template',
      found: '"/{{ .Pod.Nmae }}"',
      allowed: 'a field: .Pod.Name, .Pod.Namespace, .Pod.UID, .Pod.ServiceAccount',
      hint: 'found ".Pod.Nmae" at 1:5; did you mean .Pod.Name?',
    },
  ]);
});
refuses(
  'a template of the default rule makes a path or a whole ID',
  `${BASE}registration: { defaultRule: { template: "web" } }`,
  'registration.defaultRule.template',
  '"web"',
  'a template that begins with "/" (a path) or "spiffe://" (a whole ID)',
);

refuses(
  'a bundle is published from a cluster only',
  `${BASE}trust: { publish: { clusterTrustBundle: true } }`,
  'trust.publish',
  '{"clusterTrustBundle":true}',
  'nothing, unless attestation.kubernetes.enabled is true',
);
test('a bundle is published under a name of its own, in the namespace of the agent', (t) => {
  const { trust } = parseConfig(`${NODE}${FILES}trust: { publish: { configMap: {} } }\n`, 'signet.yaml', {});
  t.deepEqual(trust.publish, { configMap: { namespace: undefined, name: 'signet-bundle' }, clusterTrustBundle: false });
});

test('a trust domain that cannot be the name of a signer is told with the ClusterTrustBundle', (t) => {
  const yaml = `${NODE.replace('example.org', 'my_domain')}${FILES}trust: { publish: { clusterTrustBundle: true } }\n`;
  const [problem] = problemsOf(yaml);
  t.is(problem?.path, 'trust.publish.clusterTrustBundle');
  t.regex(problem?.allowed ?? '', /^false: /);
});
