import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { CORE_SCHEMA, load } from 'js-yaml';
import { SystemClock } from '../../src/clock.ts';
import { KubernetesClient } from '../../src/kubernetes/api-client.ts';
import { kubeconfigCredentials } from '../../src/kubernetes/kubeconfig.ts';
import { BundlePublisher, type BundlePublisherOptions } from '../../src/trust/publish/bundle-publisher.ts';
import { pemOf } from '../../src/trust/publish/documents.ts';
import { testIf } from '../support/kernel-conditions.ts';
import { until } from '../support/kubernetes-api.ts';
import { ChangingBundle, makeJwtKey, makeRoot } from '../trust/publish-api.ts';
import { dryRun, eventually, isNamespaced, kubeconfigWith, kubectlOk, kubectlRun, make, makeNamespace, needsCluster } from './kubernetes-cluster.ts';
import { CHART, KUSTOMIZE, ROOT, at, find, findProgram, kustomize, namesOf, parse, run, type Manifest } from './manifests.ts';

const kubectl = findProgram('kubectl') ?? '';
const helm = findProgram('helm') ?? '';
const needsKubectl = [kubectl !== '', 'needs kubectl'] as const;
const needsHelm = [helm !== '', 'needs helm'] as const;
const COMPONENT = 'resources: [BASE]\ncomponents: [BASE/components/publish-bundle]\n';
const LEASE_RULE = "(object == null ? oldObject : object).metadata.name in ['signet-rule-status', 'signet-bundle']";

interface Rule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly resourceNames?: readonly string[];
  readonly verbs: readonly string[];
}

const rulesOf = (role: Manifest): readonly Rule[] => at(role, 'rules') as Rule[];
const bundleRules = (role: Manifest): readonly Rule[] =>
  rulesOf(role).filter(({ resourceNames = [] }) => resourceNames.join().includes('bundle') || resourceNames.join().startsWith('signet.dev/'));

const CLUSTER_RULES = [
  { apiGroups: ['certificates.k8s.io'], resources: ['clustertrustbundles'], resourceNames: ['signet.dev:example.org:bundle'], verbs: ['get', 'create', 'patch'] },
  { apiGroups: ['certificates.k8s.io'], resources: ['signers'], resourceNames: ['signet.dev/example.org'], verbs: ['attest'] },
];

testIf(needsKubectl, 'publishing takes these rights more, and each of them is for one object', (t) => {
  const [base, more] = [kustomize(t, kubectl, 'resources: [BASE]\n'), kustomize(t, kubectl, COMPONENT)];
  t.deepEqual(namesOf(more), namesOf(base));
  for (const [kind, count] of [['ClusterRole', 2], ['Role', 2]] as const) {
    const [before, after] = [rulesOf(find(t, base, kind, 'signet')), rulesOf(find(t, more, kind, 'signet'))];
    t.deepEqual(after.slice(0, before.length), before);
    t.is(after.length, before.length + count);
    t.true(after.slice(before.length).every(({ resourceNames = [] }) => resourceNames.length === 1));
  }
  t.deepEqual(bundleRules(find(t, more, 'ClusterRole', 'signet')), CLUSTER_RULES);
  t.deepEqual(bundleRules(find(t, more, 'Role', 'signet')), [
    { apiGroups: [''], resources: ['configmaps'], resourceNames: ['signet-bundle'], verbs: ['get', 'create', 'patch'] },
    { apiGroups: ['coordination.k8s.io'], resources: ['leases'], resourceNames: ['signet-bundle'], verbs: ['get', 'patch'] },
  ]);
  const policy = find(t, more, 'ValidatingAdmissionPolicy', 'signet-lease');
  t.is(at(policy, 'spec.validations.0.expression'), LEASE_RULE);
});

test('the component\'s trust domain is that of the configuration', (t) => {
  const config = load(readFileSync(join(KUSTOMIZE, 'signet.yaml'), 'utf8'), { schema: CORE_SCHEMA });
  const patch = readFileSync(join(KUSTOMIZE, 'components/publish-bundle/cluster-role.yaml'), 'utf8');
  t.is(patch.split(String(at(config, 'trustDomain'))).length, 3);
});

function render(t: ExecutionContext, set: string, namespace = 'signet-system'): Manifest[] {
  const args = ['template', 'signet', CHART, '--namespace', namespace, '--kube-version', '1.34.0', '--set', `trustDomain=example.org,clusterName=a,${set}`];
  const { status, stdout, stderr } = run(helm, args);
  t.is(status, 0, stderr);
  return parse(stdout);
}

testIf(needsHelm, 'the chart gives the same rights where publishing is on, and none where it is off', (t) => {
  const off = render(t, 'publishBundle.clusterTrustBundle=true');
  t.deepEqual(['ClusterRole', 'Role'].flatMap((kind) => bundleRules(find(t, off, kind, 'signet'))), []);
  const on = render(t, 'publishBundle.enabled=true,publishBundle.clusterTrustBundle=true');
  t.deepEqual(bundleRules(find(t, on, 'ClusterRole', 'signet')), CLUSTER_RULES);
  t.deepEqual(rulesOf(find(t, on, 'Role', 'signet'))[0]?.resourceNames, ['signet-rule-status', 'signet-bundle']);
  t.is(at(find(t, on, 'ValidatingAdmissionPolicy', 'signet-lease'), 'spec.validations.0.expression'), LEASE_RULE);
  t.deepEqual(bundleRules(find(t, render(t, 'publishBundle.enabled=true'), 'ClusterRole', 'signet')), []);
});

testIf(needsHelm, 'without status of rules only the Lease for publishing is allowed', (t) => {
  const manifests = render(t, 'publishBundle.enabled=true,registration.status=false');
  t.deepEqual(rulesOf(find(t, manifests, 'Role', 'signet'))[0]?.resourceNames, ['signet-bundle']);
  t.true(namesOf(manifests).includes('ValidatingAdmissionPolicy/signet-lease'));
  t.false(namesOf(manifests).includes('ValidatingAdmissionPolicy/signet-node-report'));
});

testIf(needsHelm, 'the ConfigMap may be in another namespace, with the rights there', (t) => {
  const manifests = render(t, 'publishBundle.enabled=true,publishBundle.configMap.namespace=web,publishBundle.configMap.name=roots');
  const role = find(t, manifests, 'Role', 'signet-publish-bundle');
  t.is(role.metadata.namespace, 'web');
  t.deepEqual(rulesOf(role), [{ apiGroups: [''], resources: ['configmaps'], resourceNames: ['roots'], verbs: ['get', 'create', 'patch'] }]);
  const binding = find(t, manifests, 'RoleBinding', 'signet-publish-bundle');
  t.deepEqual(at(binding, 'subjects.0.namespace'), 'signet-system');
  const config = load((at(find(t, manifests, 'ConfigMap'), 'data') as Record<string, string>)['signet.yaml'] ?? '', { schema: CORE_SCHEMA });
  t.deepEqual(at(config, 'trust'), { publish: { configMap: { namespace: 'web', name: 'roots' }, clusterTrustBundle: false } });
});

testIf(needsHelm, 'the chart\'s configuration with publishing is one that an agent takes', (t) => {
  const manifests = render(t, 'publishBundle.enabled=true,publishBundle.clusterTrustBundle=true');
  const text = (at(find(t, manifests, 'ConfigMap'), 'data') as Record<string, string>)['signet.yaml'] ?? '';
  const directory = mkdtempSync(join(tmpdir(), 'signet-publish-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  writeFileSync(join(directory, 'signet.yaml'), text);
  const env = { ...process.env, NODE_NAME: 'node1' };
  const { status, stdout, stderr } = run(process.execPath, [join(ROOT, 'src/main.ts'), 'config', 'check', join(directory, 'signet.yaml')], '', env);
  t.is(status, 0, `${stdout}${stderr}`);
});

/** The agents' account with the component's rights, in a namespace and for a trust domain of its own. */
async function makePublisher(t: ExecutionContext): Promise<{ namespace: string; trustDomain: string; client: KubernetesClient; kubeconfig: string }> {
  const namespace = makeNamespace(t);
  const trustDomain = `${namespace}.test`;
  const kinds = ['ServiceAccount', 'ClusterRole', 'ClusterRoleBinding', 'Role', 'RoleBinding', 'ValidatingAdmissionPolicy', 'ValidatingAdmissionPolicyBinding'];
  // The policy of agents that the cluster may have already is not about this namespace.
  kubectlOk(['label', 'namespace', namespace, 'signet.dev/agents-', `${namespace}/agents=true`]);
  const rendered = JSON.stringify(kustomize(t, kubectl, `namespace: ${namespace}\n${COMPONENT}`));
  const text = rendered.replaceAll('example.org', trustDomain).replaceAll('signet.dev/agents', `${namespace}/agents`);
  const ours = ({ kind, metadata }: Manifest): boolean => kinds.includes(kind) && ['signet', 'signet-lease'].includes(metadata.name);
  make(t, (JSON.parse(text) as Manifest[]).filter(ours).map((one) => renamed(one, namespace)));
  const kubeconfig = kubeconfigWith(t, kubectlOk(['create', 'token', 'signet', '-n', namespace]).trim());
  const client = new KubernetesClient({ credentials: kubeconfigCredentials(kubeconfig), clock: new SystemClock() });
  t.teardown(() => client.close());
  t.teardown(() => void kubectlRun(['delete', 'clustertrustbundles', `signet.dev:${trustDomain}:bundle`, '--ignore-not-found']));
  await eventually(t, 'the rights count', () => kubectlRun(['auth', 'can-i', 'patch', 'configmaps/signet-bundle', '-n', namespace], '', kubeconfig).status === 0);
  const other = JSON.stringify({ apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name: 'other', namespace }, spec: {} });
  await eventually(t, 'the policy counts', () => kubectlRun(['create', '--dry-run=server', '-f', '-'], other, kubeconfig).stderr.includes('signet-bundle only'));
  return { namespace, trustDomain, client, kubeconfig };
}

/** Objects that are in no namespace get the test's name. */
function renamed(manifest: Manifest, namespace: string): Manifest {
  if (isNamespaced(manifest)) return manifest;
  const { namespace: _, ...metadata } = manifest.metadata;
  const rename = (name: unknown): string => `${String(name)}-${namespace}`;
  const copy: Manifest = { ...manifest, metadata: { ...metadata, name: rename(metadata.name) } };
  if (at(copy, 'roleRef.name') !== undefined) copy['roleRef'] = { ...(copy['roleRef'] as object), name: rename(at(copy, 'roleRef.name')) };
  if (at(copy, 'spec.policyName') !== undefined) copy['spec'] = { ...(copy['spec'] as object), policyName: rename(at(copy, 'spec.policyName')) };
  return copy;
}

const hasClusterBundles = needsCluster[0] && kubectlRun(['get', 'clustertrustbundles']).status === 0;

function publisherFor(t: ExecutionContext, bundle: ChangingBundle, more: Pick<BundlePublisherOptions, 'client' | 'namespace' | 'identity'>): BundlePublisher {
  // A fraction of nothing: the election begins at once.
  const random = { bytes: (count: number) => Buffer.alloc(count), fraction: () => 0 };
  const publisher = new BundlePublisher({ ...more, bundle, configMap: {}, clusterTrustBundle: true, clock: new SystemClock(), random });
  t.teardown(() => publisher.close());
  publisher.start();
  return publisher;
}

/** Counts what is looked at and applied, but for Leases. */
function recording(client: KubernetesClient): { readonly client: BundlePublisherOptions['client']; readonly looked: Set<string>; readonly applied: string[] } {
  const [looked, applied] = [new Set<string>(), [] as string[]];
  const get: KubernetesClient['get'] = (path, options) => {
    const answer = client.get(path, options);
    const tell = (): void => void (/bundle$/.test(path) && !path.includes('/leases/') && looked.add(path));
    answer.then(tell, tell);
    return answer;
  };
  const apply: KubernetesClient['apply'] = async (path, object, options) => {
    const answer = await client.apply(path, object, options);
    if (!path.includes('/leases/')) applied.push(String(object['kind']));
    return answer;
  };
  return { client: { get, create: (path, object, options) => client.create(path, object, options), apply }, looked, applied };
}

testIf(needsCluster, 'with these rights and no others an agent publishes, and its successor writes only what is new', async (t) => {
  const { namespace, trustDomain, client } = await makePublisher(t);
  const [a, b, c] = await Promise.all([makeRoot(), makeRoot(), makeRoot()]);
  const key = makeJwtKey();
  const kinds = hasClusterBundles ? ['ClusterTrustBundle', 'ConfigMap'] : ['ConfigMap'];
  const pemIn = (): string => kubectlRun(['get', 'configmap', 'signet-bundle', '-n', namespace, '-o', 'jsonpath={.data.bundle\\.pem}']).stdout;
  const rootsNow = (): Buffer[] => [...pemIn().matchAll(/-----BEGIN[^]+?END CERTIFICATE-----/g)].map(([block]) => new X509Certificate(block).raw);
  const sorted = (...roots: Buffer[]): Buffer[] => [...roots].sort(Buffer.compare);
  /** As holder of the Lease, with `before` until it has looked at everything, then with `after`. Returns what was written. */
  const reign = async (identity: string, before: readonly Buffer[], after: readonly Buffer[] | undefined): Promise<string[]> => {
    const { client: recorded, looked, applied } = recording(client);
    const bundle = new ChangingBundle(before, [key], trustDomain);
    const publisher = publisherFor(t, bundle, { client: recorded, namespace, identity });
    await until(() => looked.size === kinds.length, `${identity} has looked`);
    if (after !== undefined) bundle.set(after, [key]);
    await until(() => kinds.every((kind) => applied.includes(kind)), `${identity} has written`);
    await publisher.close();
    t.is(publisher.failures.size, 0);
    return applied.sort();
  };

  t.deepEqual(await reign('first', [a, b], undefined), kinds);
  t.deepEqual(rootsNow(), sorted(a, b));
  const document = kubectlOk(['get', 'configmap', 'signet-bundle', '-n', namespace, '-o', 'jsonpath={.data.bundle\\.spiffe}']);
  t.like(JSON.parse(document) as object, { spiffe_refresh_hint: 300, keys: { 2: { use: 'jwt-svid', kid: key.kid }, length: 3 } });
  if (hasClusterBundles) {
    const found = JSON.parse(kubectlOk(['get', 'clustertrustbundle', `signet.dev:${trustDomain}:bundle`, '-o', 'json'])) as Manifest;
    t.like(found['spec'] as object, { signerName: `signet.dev/${trustDomain}`, trustBundle: pemIn() });
  }
  // It writes once for the change and not for what was there; what it never had stays, by the fields that the server says are ours.
  t.deepEqual(await reign('second', [a], [a, c]), kinds);
  t.deepEqual(rootsNow(), sorted(a, b, c));
  // The holder has had `c` itself, so it may go at once.
  t.deepEqual(await reign('third', [a, b, c], [a, b]), kinds);
  t.deepEqual(rootsNow(), sorted(a, b));
  // What people write into it is not ours any more, so that a root of theirs is not kept.
  const added = pemOf({ roots: [a, b, c], jwtKeys: [] });
  kubectlOk(['patch', 'configmap', 'signet-bundle', '-n', namespace, '--type=merge', '-p', JSON.stringify({ data: { 'bundle.pem': added } })]);
  t.is(rootsNow().length, 3);
  const { client: recorded, applied } = recording(client);
  const last = publisherFor(t, new ChangingBundle([a, b], [key], trustDomain), { client: recorded, namespace, identity: 'last' });
  await until(() => applied.length > 0, 'it was put right');
  t.deepEqual(rootsNow(), sorted(a, b));
  await last.close();
});

testIf(needsCluster, 'the rights reach no other ConfigMap, bundle or signer', async (t) => {
  const { namespace, client, kubeconfig } = await makePublisher(t);
  const may = (...args: string[]): string => kubectlRun(['auth', 'can-i', ...args], '', kubeconfig).stdout.trim();
  const refused = [
    `get configmaps/other -n ${namespace}`,
    `patch configmaps/other -n ${namespace}`,
    `create configmaps -n ${namespace}`,
    `delete configmaps/signet-bundle -n ${namespace}`,
    'patch configmaps/signet-bundle -n default',
    'create clustertrustbundles',
    'patch clustertrustbundles/signet.dev:other.test:bundle',
    'attest signers/signet.dev/other.test',
    'attest signers/kubernetes.io/kube-apiserver-serving',
    'sign signers/signet.dev/other.test',
    'approve signers/signet.dev/other.test',
  ];
  for (const right of refused) t.is(may(...right.split(' ')), 'no', right);
  // Reading any ClusterTrustBundle is Kubernetes' own gift to service accounts.
  const bundle = new ChangingBundle([await makeRoot()], [], 'other.test');
  const publisher = publisherFor(t, bundle, { client, namespace, identity: 'pod' });
  if (!hasClusterBundles) return;
  await until(() => publisher.failures.size > 0, 'the refusal is known');
  t.regex([...publisher.failures.values()].join(), /signet\.dev:other\.test:bundle.*forbidden/);
});

testIf([needsHelm[0] && needsCluster[0], 'needs helm and a cluster'], 'an API server takes what the chart and the component make', (t) => {
  const namespace = makeNamespace(t);
  for (const manifests of [
    render(t, 'publishBundle.enabled=true,publishBundle.clusterTrustBundle=true', namespace),
    kustomize(t, kubectl, `namespace: ${namespace}\n${COMPONENT}`).filter(({ kind }) => kind !== 'Namespace'),
  ]) {
    const { status, stderr } = dryRun(manifests);
    t.is(status, 0, stderr);
  }
});
