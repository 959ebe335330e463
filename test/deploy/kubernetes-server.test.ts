import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { testIf } from '../support/kernel-conditions.ts';
import { dryRun, eventually, isNamespaced, kubeconfigWith, kubectlOk, kubectlRun, make, makeNamespace, needsCluster, unique } from './kubernetes-cluster.ts';
import { EXAMPLES, KUSTOMIZE, at, find, findProgram, kustomize, parse, readManifests, type Manifest, type Ran } from './manifests.ts';

const kubectl = findProgram('kubectl') ?? '';
/** Kinds of others' definitions, which a cluster may lack. */
const FOREIGN = ['PodMonitor', 'SecurityContextConstraints'];

for (const component of ['', 'kubelet', 'csi', 'resource-quota', 'executables', 'pod-monitor', 'openshift', 'cert-manager']) {
  testIf(needsCluster, `an API server takes the objects as they are: ${component === '' ? 'base' : component}`, (t) => {
    const namespace = makeNamespace(t);
    const components = component === '' ? '' : `components: [BASE/components/${component}]\n`;
    const all = kustomize(t, kubectl, `namespace: ${namespace}\nresources: [BASE, BASE/crds/spire]\n${components}`);
    const manifests = all.filter(({ kind }) => kind !== 'Namespace' && !FOREIGN.includes(kind));
    const { status, stdout, stderr } = dryRun(manifests);
    t.is(status, 0, stderr);
    t.is(stdout.trim().split('\n').length, manifests.length);
    t.notRegex(stderr, /[Ww]arning: (?!.*last-applied)/);
  });
}

testIf(needsCluster, 'an API server takes the namespace and the workloads of the examples', (t) => {
  const files = ['namespace.yaml'].map((name) => join(KUSTOMIZE, name)).concat(['workload.yaml', 'workload-csi.yaml'].map((name) => join(EXAMPLES, name)));
  const { status, stderr } = dryRun(files.flatMap(readManifests));
  t.is(status, 0, stderr);
});

/** The definitions in a group of their own, so that those of the cluster are left alone. */
async function makeDefinitions(t: ExecutionContext, files: readonly string[], from: string): Promise<string> {
  const group = `${unique()}.test`;
  const crds = files.flatMap((file) => parse(readFileSync(join(KUSTOMIZE, 'crds', file), 'utf8').replaceAll(from, group)));
  make(t, crds);
  for (const { metadata } of crds) kubectlOk(['wait', '--for=condition=Established', '--timeout=30s', `crd/${metadata.name}`]);
  const plurals = crds.map((crd) => String(at(crd, 'spec.names.plural')));
  await eventually(t, 'the API server serves the new resources', () =>
    plurals.every((plural) => kubectlRun(['get', `${plural}.${group}`]).status === 0),
  );
  return group;
}

testIf(needsCluster, 'the definitions of rules take the examples and refuse what no agent could use', async (t) => {
  const kinds = ['clusterspiffeids', 'clusterstaticentries', 'clusterfederatedtrustdomains'];
  const files = kinds.map((plural) => `spire/spire.spiffe.io_${plural}.yaml`);
  const group = await makeDefinitions(t, files, 'spire.spiffe.io');
  const object = (kind: string, spec: object): Manifest => ({ apiVersion: `${group}/v1alpha1`, kind, metadata: { name: 'a' }, spec });
  const examples = ['cluster-spiffe-id.yaml', 'cluster-static-entry.yaml'].map((name) => readFileSync(join(EXAMPLES, name), 'utf8'));
  const good = examples.flatMap((text) => parse(text.replaceAll('spire.spiffe.io', group)));
  const whole = { spiffeIDTemplate: 'a', podSelector: {}, namespaceSelector: {}, dnsNameTemplates: [], workloadSelectorTemplates: [], ttl: '1h', jwtTtl: '5m0s' };
  const more = { federatesWith: [], admin: true, downstream: true, autoPopulateDNSNames: true, className: 'x', fallback: true, hint: '' };
  const endpoint = { trustDomain: 'other.org', bundleEndpointURL: 'https://other.org/', bundleEndpointProfile: { type: 'https_web' } };
  good.push(object('ClusterSPIFFEID', { ...whole, ...more }), object('ClusterFederatedTrustDomain', endpoint));
  for (const one of good) {
    const { status, stderr } = dryRun([one]);
    t.is(status, 0, stderr);
  }
  const bad: readonly (readonly [string, object, RegExp])[] = [
    ['ClusterSPIFFEID', {}, /missing required field "spiffeIDTemplate"/],
    ['ClusterSPIFFEID', { spiffeIDTemplate: '' }, /a template is needed/],
    ['ClusterSPIFFEID', { spiffeIDTemplate: 'a', ttl: '1 hour' }, /a duration like 90s, 30m or 1h30m is needed/],
    ['ClusterSPIFFEID', { spiffeIDTemplate: 'a', jwtTtl: '5' }, /a duration like 90s, 30m or 1h30m is needed/],
    ['ClusterSPIFFEID', { spiffeIDTemplate: 'a', podSelector: { matchExpressions: [{ key: 'a' }] } }, /missing required field "operator"/],
    ['ClusterSPIFFEID', { spiffeIDTemplate: 'a', spiffeId: 'b' }, /unknown field "spiffeId"/],
    ['ClusterStaticEntry', { spiffeID: 'spiffe://example.org/a' }, /missing required field "selectors"/],
    ['ClusterStaticEntry', { spiffeID: 'spiffe://example.org/a', selectors: [] }, /should have at least 1 items/],
    ['ClusterStaticEntry', { spiffeID: '/a', selectors: ['k8s:ns:a'] }, /a SPIFFE ID is needed/],
    ['ClusterFederatedTrustDomain', { ...endpoint, bundleEndpointURL: 'http://a' }, /an https URL is needed/],
    ['ClusterFederatedTrustDomain', { ...endpoint, bundleEndpointProfile: { type: 'https_spiffe' } }, /https_spiffe needs endpointSPIFFEID/],
  ];
  for (const [kind, spec, reason] of bad) {
    const { status, stderr } = dryRun([object(kind, spec)]);
    t.not(status, 0, `${kind} ${JSON.stringify(spec)}`);
    t.regex(stderr, reason);
  }
});

interface Fleet {
  readonly namespace: string;
  readonly group: string;
  /** A kubeconfig with a token of the agents' service account, of a pod on this node or of none. */
  readonly as: (node: string | undefined) => string;
}

/** The agents' account, rights and admission policies, and pods of it on two nodes that do not exist. */
async function makeFleet(t: ExecutionContext): Promise<Fleet> {
  const namespace = makeNamespace(t);
  const group = await makeDefinitions(t, ['signet.dev_nodereports.yaml'], 'signet.dev');
  const kinds = ['ServiceAccount', 'ClusterRole', 'ClusterRoleBinding', 'Role', 'RoleBinding', 'ValidatingAdmissionPolicy', 'ValidatingAdmissionPolicyBinding'];
  const all = kustomize(t, kubectl, `namespace: ${namespace}\nresources: [BASE]\n`).filter(({ kind }) => kinds.includes(kind));
  const text = JSON.stringify(all).replaceAll('signet.dev/agents', 'SAME').replaceAll('signet.dev', group).replaceAll('SAME', 'signet.dev/agents');
  const manifests = JSON.parse(text) as Manifest[];
  // An overlay with another namespace moves this one too; the API server takes the Events in `default` only.
  for (const { metadata } of manifests) if (metadata.name === 'signet-events') Object.assign(metadata, { namespace: 'default', name: namespace });
  for (const binding of manifests) if (at(binding, 'roleRef.name') === 'signet-events') Object.assign(binding['roleRef'] as object, { name: namespace });
  make(t, renamed(manifests, namespace));
  make(t, ['node-a', 'node-b'].map((node) => podOn(`${namespace}-${node}`, namespace)));
  const as = (node: string | undefined): string => {
    const bound = node === undefined ? [] : boundTo(`${namespace}-${node}`, namespace);
    return kubeconfigWith(t, kubectlOk(['create', 'token', 'signet', '-n', namespace, ...bound]).trim());
  };
  return { namespace, group, as };
}

/** Objects that are in no namespace get the test's name, and so do references to them. */
function renamed(manifests: readonly Manifest[], name: string): Manifest[] {
  const suffix = `-${name}`;
  const rename = (one: Manifest): Manifest => {
    if (isNamespaced(one)) return one;
    const copy = structuredClone(one);
    delete copy.metadata.namespace;
    copy.metadata.name += suffix;
    for (const [path, key] of [['roleRef', 'name'], ['spec', 'policyName']] as const) {
      const holder = copy[path] as Record<string, unknown> | undefined;
      if (holder?.[key] !== undefined) holder[key] = `${String(holder[key])}${suffix}`;
    }
    return copy;
  };
  return manifests.map(rename);
}

/** A pod named like its node, which does not exist. */
function podOn(nodeName: string, namespace: string): Manifest {
  const containers = [{ name: 'agent', image: 'localhost/none:1' }];
  const spec = { serviceAccountName: 'signet', automountServiceAccountToken: false, nodeName, containers };
  return { apiVersion: 'v1', kind: 'Pod', metadata: { name: nodeName, namespace }, spec };
}

function boundTo(pod: string, namespace: string): string[] {
  const uid = kubectlOk(['get', 'pod', pod, '-n', namespace, '-o', 'jsonpath={.metadata.uid}']);
  return ['--bound-object-kind', 'Pod', '--bound-object-name', pod, '--bound-object-uid', uid];
}

testIf(needsCluster, 'an agent writes the report of its own node and no other', async (t) => {
  const { namespace, group, as } = await makeFleet(t);
  const [agent, nobody] = [as('node-a'), as(undefined)];
  const report = (name: string): Manifest => ({
    apiVersion: `${group}/v1alpha1`,
    kind: 'NodeReport',
    metadata: { name },
    spec: { reporter: 'test', rules: [] },
  });
  const [own, other] = [report(`${namespace}-node-a`), report(`${namespace}-node-b`)];
  await eventually(t, 'the policy refuses another node\'s report', () => dryRun([other], agent).stderr.includes('ValidatingAdmissionPolicy'));
  const refused = dryRun([other], agent);
  t.not(refused.status, 0);
  t.regex(refused.stderr, new RegExp(`the agent on node ${namespace}-node-a may write the NodeReport ${namespace}-node-a, not ${namespace}-node-b`));
  const taken = dryRun([own], agent);
  t.is(taken.status, 0, taken.stderr);
  const unbound = dryRun([own], nobody);
  t.not(unbound.status, 0);
  t.regex(unbound.stderr, /the token names no node/);
  const byPeople = dryRun([other]);
  t.is(byPeople.status, 0, byPeople.stderr);

  make(t, [own, other]);
  const patch = ['--type=merge', '-p', '{"spec":{"reporter":"else"}}', '--dry-run=server'];
  const resource = `nodereports.${group}`;
  t.is(kubectlRun(['patch', resource, own.metadata.name, ...patch], '', agent).status, 0);
  t.not(kubectlRun(['patch', resource, other.metadata.name, ...patch], '', agent).status, 0);
  t.regex(kubectlRun(['delete', resource, own.metadata.name, '--dry-run=server'], '', agent).stderr, /cannot delete resource "nodereports"/);
});

testIf(needsCluster, 'an agent writes one Lease of its namespace, and other accounts are not concerned', async (t) => {
  const { namespace, as } = await makeFleet(t);
  const agent = as('node-a');
  const lease = (name: string): Manifest => ({ apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name, namespace }, spec: {} });
  const create = (name: string, as?: string): Ran => kubectlRun(['create', '--dry-run=server', '-f', '-'], JSON.stringify(lease(name)), as);
  await eventually(t, 'the policy refuses another Lease', () => create('other', agent).stderr.includes('the agents may write'));
  t.not(create('other', agent).status, 0);
  const taken = create('signet-rule-status', agent);
  t.is(taken.status, 0, taken.stderr);
  t.is(create('other').status, 0);
  make(t, [lease('signet-rule-status')]);
  const patch = ['--type=merge', '-p', '{"spec":{"holderIdentity":"me"}}', '--dry-run=server', '-n', namespace];
  t.is(kubectlRun(['patch', 'lease', 'signet-rule-status', ...patch], '', agent).status, 0);
});

testIf(needsCluster, 'what the API server lets an agent do', async (t) => {
  const { namespace, as } = await makeFleet(t);
  const agent = as('node-a');
  const may = (...args: string[]): string => kubectlRun(['auth', 'can-i', ...args], '', agent).stdout.trim();
  const allowed = ['list pods -A', 'watch namespaces', 'get nodes', `patch leases/signet-rule-status -n ${namespace}`, 'create events.events.k8s.io -n default'];
  for (const right of allowed) t.is(may(...right.split(' ')), 'yes', right);
  const refused = [
    'get secrets -A',
    `get secrets/signet-ca -n ${namespace}`,
    'create pods --subresource=exec -A',
    'get pods --subresource=exec -A',
    'create pods --subresource=attach -A',
    'create pods --subresource=ephemeralcontainers -A',
    'create serviceaccounts --subresource=token -A',
    'get nodes --subresource=proxy',
    'create pods -A',
    'patch nodes',
    `patch configmaps -n ${namespace}`,
    `patch leases/other -n ${namespace}`,
    'create leases -n kube-system',
    'create events.events.k8s.io -n kube-system',
    'impersonate users',
    'create clusterrolebindings',
  ];
  for (const right of refused) t.is(may(...right.split(' ')), 'no', right);
});

testIf(needsCluster, 'every report that an agent can write fits the definition', async (t) => {
  const group = await makeDefinitions(t, ['signet.dev_nodereports.yaml'], 'signet.dev');
  const rule = { kind: 'ClusterSPIFFEID', uid: '3b8f1c1e-0000-4000-8000-000000000000', generation: 3, podsSelected: 1, podsFailed: 1, entriesMasked: 0 };
  const rules = Array.from({ length: 512 }, (_, index) => ({ ...rule, name: `${'n'.repeat(249)}${index}`.slice(0, 253), problem: 'p'.repeat(256) }));
  const report = (spec: object): Manifest => ({ apiVersion: `${group}/v1alpha1`, kind: 'NodeReport', metadata: { name: 'node' }, spec: spec as never });
  const file = (spec: object): string => JSON.stringify(report(spec));
  const { status, stderr } = kubectlRun(['create', '--dry-run=server', '-f', '-'], file({ reporter: 'host', rules }));
  t.is(status, 0, stderr);
  const tooMany = kubectlRun(['create', '--dry-run=server', '-f', '-'], file({ reporter: 'host', rules: [...rules, rules[0]] }));
  t.regex(tooMany.stderr, /must have at most 512 items/);
  t.is(find(t, [report({})], 'NodeReport').metadata.name, 'node');
});
