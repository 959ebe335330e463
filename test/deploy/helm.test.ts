import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { CORE_SCHEMA, load } from 'js-yaml';
import { testIf } from '../support/kernel-conditions.ts';
import { dryRun, make, makeNamespace, needsCluster } from './kubernetes-cluster.ts';
import { CHART, KUSTOMIZE, ROOT, at, find, findProgram, kustomize, namesOf, parse, run, type Manifest, type Ran } from './manifests.ts';

const helm = findProgram('helm') ?? '';
const kubectl = findProgram('kubectl') ?? '';
const needsHelm = [helm !== '', 'needs helm'] as const;
const needsBoth = [helm !== '' && kubectl !== '', 'needs helm and kubectl'] as const;
const needsHelmAndCluster = [helm !== '' && needsCluster[0], helm === '' ? 'needs helm' : needsCluster[1]] as const;
const CONTAINER = 'spec.template.spec.containers.0';
const REQUIRED = ['--set', 'trustDomain=example.org,clusterName=example'];
/** A Helm that was built from its module knows no Kubernetes version of its own. */
const OFFLINE = ['--kube-version', '1.34.0'];

function template(namespace: string, args: readonly string[], mode: readonly string[] = OFFLINE): Ran {
  return run(helm, ['template', 'signet', CHART, '--namespace', namespace, ...mode, ...args]);
}

function render(t: ExecutionContext, args: readonly string[] = [], namespace = 'signet-system'): Manifest[] {
  const { status, stdout, stderr } = template(namespace, [...REQUIRED, ...args]);
  t.is(status, 0, stderr);
  return parse(stdout);
}

function configOf(t: ExecutionContext, manifests: readonly Manifest[]): unknown {
  const text = (at(find(t, manifests, 'ConfigMap'), 'data') as Record<string, string>)['signet.yaml'] ?? '';
  return load(text, { schema: CORE_SCHEMA });
}

for (const [name, given] of [['trustDomain', 'clusterName=a'], ['clusterName', 'trustDomain=example.org']] as const) {
  testIf(needsHelm, `the chart requires ${name} and says what it is`, (t) => {
    const { status, stderr } = template('signet-system', ['--set', given]);
    t.not(status, 0);
    t.regex(stderr, new RegExp(`${name} is required: .+e\\.g\\. --set ${name}=`));
  });
}

testIf(needsBoth, 'the chart with its defaults is the kustomization', (t) => {
  const ours = kustomize(t, kubectl, 'resources: [BASE, BASE/crds/spire]\n').filter(({ kind }) => kind !== 'Namespace');
  const charts = render(t);
  t.deepEqual(namesOf(charts.map(plain)), namesOf(ours.map(plain)));
  for (const one of ours.map(plain)) {
    const same = charts.map(plain).find(({ kind, metadata }) => kind === one.kind && metadata.name === one.metadata.name);
    t.deepEqual(same, one, `${one.kind} ${one.metadata.name}`);
  }
});

testIf(needsBoth, 'the chart\'s configuration adds only defaults to that of the kustomization', (t) => {
  const ours = load(readFileSync(join(KUSTOMIZE, 'signet.yaml'), 'utf8'), { schema: CORE_SCHEMA }) as Record<string, unknown>;
  t.like(configOf(t, render(t)), ours);
});

/** Without what differs on purpose: labels, hashes, the configuration's text, and by what a namespace is known. */
function plain(manifest: Manifest): Manifest {
  const copy = structuredClone(manifest);
  delete copy.metadata.labels;
  delete copy.metadata.annotations;
  if (copy.kind === 'ConfigMap') {
    copy.metadata.name = copy.metadata.name.replace(/-[a-z0-9]{10}$/, '');
    delete copy['data'];
  }
  if (copy.kind === 'ValidatingAdmissionPolicyBinding') delete (copy['spec'] as Record<string, unknown>)['matchResources'];
  if (copy.kind === 'DaemonSet') {
    delete (at(copy, 'spec.template.metadata.annotations') as Record<string, unknown>)['checksum/config'];
    const [config] = at(copy, 'spec.template.spec.volumes') as { configMap: { name: string } }[];
    if (config !== undefined) config.configMap.name = 'signet';
  }
  return copy;
}

test('the chart has copies of the definitions', (t) => {
  const files = ['', 'spire'].flatMap((directory) =>
    readdirSync(join(KUSTOMIZE, 'crds', directory)).filter((name) => name.includes('_')).map((name) => [name, join(KUSTOMIZE, 'crds', directory, name)] as const),
  );
  t.deepEqual(readdirSync(join(CHART, 'files/crds')).sort(), files.map(([name]) => name).sort());
  for (const [name, path] of files) t.is(readFileSync(join(CHART, 'files/crds', name), 'utf8'), readFileSync(path, 'utf8'), name);
});

test('chart and package have one version', (t) => {
  const chart = load(readFileSync(join(CHART, 'Chart.yaml'), 'utf8'), { schema: CORE_SCHEMA });
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
  t.deepEqual([at(chart, 'version'), at(chart, 'appVersion')], [version, version]);
});

test('the chart\'s guide lists every value with its default', (t) => {
  const values = load(readFileSync(join(CHART, 'values.yaml'), 'utf8'), { schema: CORE_SCHEMA });
  const rows = readFileSync(join(CHART, 'README.md'), 'utf8').matchAll(/^\| `([^`]+)` \| `([^`]*)` \| /gm);
  const documented = new Map([...rows].map(([, name, text]) => [name ?? '', load(text ?? '', { schema: CORE_SCHEMA })] as const));
  const actual = new Map(leavesOf(values));
  t.deepEqual([...documented.keys()].sort(), [...actual.keys()].sort());
  for (const [name, value] of actual) t.deepEqual(documented.get(name), value, name);
});

test('the chart\'s schema knows every value', (t) => {
  const values = load(readFileSync(join(CHART, 'values.yaml'), 'utf8'), { schema: CORE_SCHEMA });
  const schema: unknown = JSON.parse(readFileSync(join(CHART, 'values.schema.json'), 'utf8'));
  for (const [name] of leavesOf(values)) {
    const path = name.split('.').reduce((inner, key) => (at(schema, `${inner}type`) === 'object' && at(schema, `${inner}properties`) !== undefined ? `${inner}properties.${key}.` : inner), '');
    t.truthy(at(schema, path.slice(0, -1)), name);
  }
});

/** Values that are set one by one; a map without fixed keys, and a list, is one value. */
function* leavesOf(value: unknown, path = ''): Generator<readonly [name: string, value: unknown]> {
  const isFixed = typeof value === 'object' && value !== null && !Array.isArray(value) && Object.keys(value).length > 0;
  if (!isFixed || path === 'nodeSelector') return void (yield [path, value]);
  for (const [key, inner] of Object.entries(value)) yield* leavesOf(inner, path === '' ? key : `${path}.${key}`);
}

const REFUSED: readonly (readonly [set: string, reason: RegExp])[] = [
  ['trustDomain=Example.org', /trustDomain.*does not match/s],
  ['image.digest=sha256:abc', /image\/digest.*does not match/s],
  ['image.pullPolicy=Sometimes', /image\/pullPolicy/],
  ['kubernetes.source=both', /kubernetes\/source/],
  ['telemetry.port=80', /telemetry\/port/],
  ['authority.ttl=1 day', /authority\/ttl.*does not match/s],
  ['log.level=loud', /log\/level/],
  ['hostDirectory=run', /hostDirectory.*does not match/s],
  ['registration.defaultrule.enabled=false', /additional properties 'defaultrule' not allowed/],
  ['tolerance=1', /additional properties 'tolerance' not allowed/],
  ['ca.existingSecret=', /ca\.existingSecret is required/],
];

for (const [set, reason] of REFUSED) {
  testIf(needsHelm, `the chart refuses ${set}`, (t) => {
    const { status, stderr } = template('signet-system', [...REQUIRED, '--set', set]);
    t.not(status, 0);
    t.regex(stderr, reason);
  });
}

testIf(needsHelm, 'the chart makes no CA where it could not see that there is one', (t) => {
  const { status, stderr } = template('signet-system', [...REQUIRED, '--set', 'ca.generate=true']);
  t.not(status, 0);
  t.regex(stderr, /ca\.generate needs the cluster/);
});

testIf(needsHelm, 'what is switched off is not there, and neither are the rights for it', (t) => {
  const off = ['registration.status', 'registration.customResources', 'crds.install', 'admissionPolicy.enabled', 'flowSchema.enabled', 'networkPolicy.enabled'];
  const manifests = render(t, ['--set', off.map((name) => `${name}=false`).join(',')]);
  t.deepEqual(namesOf(manifests), [
    'ClusterRole/signet',
    'ClusterRoleBinding/signet',
    'ConfigMap/signet-system/signet',
    'DaemonSet/signet-system/signet',
    'ServiceAccount/signet-system/signet',
  ]);
  const groups = (at(find(t, manifests, 'ClusterRole'), 'rules') as { apiGroups: string[] }[]).flatMap(({ apiGroups }) => apiGroups);
  t.deepEqual(groups, ['', '', '', 'signet.dev']);
  t.false(namesOf(render(t, ['--set', 'crds.spire=false'])).some((name) => name.includes('spire.spiffe.io')));
});

testIf(needsHelm, 'with the kubelet as the source the chart gives no right on pods', (t) => {
  const manifests = render(t, ['--set', 'kubernetes.source=kubelet']);
  const rules = at(find(t, manifests, 'ClusterRole'), 'rules') as { resources: string[]; verbs: string[] }[];
  t.deepEqual(rules.filter(({ resources }) => resources.join().includes('pods')), [{ apiGroups: [''], resources: ['nodes/pods'], verbs: ['get'] } as never]);
  t.deepEqual(at(configOf(t, manifests), 'kubernetes'), { nodeName: '${NODE_NAME}', source: 'kubelet', kubelet: { host: '${NODE_IP}' } });
  t.deepEqual(at(find(t, manifests, 'DaemonSet'), `${CONTAINER}.env.4.valueFrom.fieldRef.fieldPath`), 'status.hostIP');
});

testIf(needsHelm, 'looking at executables takes one capability', (t) => {
  const manifests = render(t, ['--set', 'attestation.executables=true']);
  t.deepEqual(at(find(t, manifests, 'DaemonSet'), `${CONTAINER}.securityContext.capabilities`), { drop: ['ALL'], add: ['SYS_PTRACE'] });
  t.deepEqual(at(configOf(t, manifests), 'attestation'), { kubernetes: { enabled: true }, unix: { path: true } });
});

testIf(needsHelm, 'values reach the configuration, and config wins over them', (t) => {
  const entries = ['entries[0].id=spiffe://example.org/a', 'entries[0].selectors[0]=k8s:ns:a'];
  const config = ['config.x509.ttl=30m', 'config.authority.ttl=2h', 'config.authority.nameConstraint=uri'];
  const more = ['telemetry.host=::', 'telemetry.port=9999', 'audit.path=-', 'log.level=debug', 'registration.excludeNamespaces={kube-system}'];
  const manifests = render(t, ['--set', [...entries, ...config, ...more].join(',')]);
  const found = configOf(t, manifests);
  t.deepEqual(at(found, 'entries'), [{ id: 'spiffe://example.org/a', selectors: ['k8s:ns:a'] }]);
  t.is(at(found, 'x509.ttl'), '30m');
  t.like(at(found, 'authority') as object, { type: 'files', ttl: '2h', nameConstraint: 'uri' });
  t.is(at(found, 'telemetry.address'), '[::]:9999');
  t.is(at(found, 'audit.path'), '-');
  t.deepEqual(at(found, 'registration.excludeNamespaces'), ['kube-system']);
  t.is(at(find(t, manifests, 'DaemonSet'), `${CONTAINER}.ports.0.containerPort`), 9999);
});

testIf(needsHelm, 'a changed configuration, and nothing else, changes the pods', (t) => {
  const sum = (set: string): unknown =>
    (at(find(t, render(t, ['--set', set]), 'DaemonSet'), 'spec.template.metadata.annotations') as Record<string, unknown>)['checksum/config'];
  t.not(sum('authority.ttl=2h'), sum('authority.ttl=3h'));
  t.is(sum('networkPolicy.enabled=true'), sum('networkPolicy.enabled=false'));
});

testIf(needsHelm, 'an image is named by its tag or by its digest', (t) => {
  const image = (set: string): unknown => at(find(t, render(t, ['--set', set]), 'DaemonSet'), `${CONTAINER}.image`);
  const digest = `sha256:${'a'.repeat(64)}`;
  t.is(image('image.repository=registry.example/signet,image.tag=v2'), 'registry.example/signet:v2');
  t.is(image(`image.digest=${digest},image.tag=v2`), `signet@${digest}`);
});

testIf(needsHelm, 'the chart\'s configuration is one that an agent takes', (t) => {
  for (const set of ['kubernetes.source=api', 'kubernetes.source=kubelet', 'telemetry.host=::,audit.path=-', 'registration.status=false']) {
    const { status, stdout, stderr } = checkConfig(render(t, ['--set', set]));
    t.is(status, 0, `${set}: ${stdout}${stderr}`);
  }

  function checkConfig(manifests: readonly Manifest[]): Ran {
    const text = (at(find(t, manifests, 'ConfigMap'), 'data') as Record<string, string>)['signet.yaml'];
    const env = { ...process.env, NODE_NAME: 'node1', NODE_IP: '10.0.0.7' };
    const directory = mkdtempSync(join(tmpdir(), 'signet-chart-'));
    t.teardown(() => rmSync(directory, { recursive: true, force: true }));
    writeFileSync(join(directory, 'signet.yaml'), text ?? '');
    return run(process.execPath, [join(ROOT, 'src/main.ts'), 'config', 'check', join(directory, 'signet.yaml')], '', env);
  }
});

testIf(needsHelm, 'helm finds no fault in the chart', (t) => {
  const { status, stdout } = run(helm, ['lint', '--strict', CHART, ...OFFLINE, ...REQUIRED]);
  t.is(status, 0, stdout);
});

const AFFINITY = 'affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0]';

/** Every option on and off, the others at their defaults, and all of them together. */
const OPTIONS = [
  'kubernetes.source=kubelet',
  'attestation.executables=true',
  'registration.status=false',
  'registration.customResources=false',
  'registration.defaultRule.enabled=false',
  'registration.excludeNamespaces={a,b}',
  'crds.install=false',
  'crds.spire=false',
  'admissionPolicy.enabled=false',
  'flowSchema.enabled=false',
  'networkPolicy.enabled=false',
  'csi.createDriver=true',
  'resourceQuota.enabled=true',
  'audit.path=-',
  'telemetry.host=::,telemetry.port=9999',
  `image.digest=sha256:${'a'.repeat(64)}`,
  'image.pullSecrets[0].name=registry',
  'priorityClassName=',
  'extraTolerations[0].key=a,extraTolerations[0].operator=Exists',
  'extraEnv[0].name=A,extraEnv[0].value=b',
  'podLabels.team=a,podAnnotations.note=b',
  'nodeSelector.zone=a',
  ['key=metadata.name', 'operator=In', 'values={n}'].map((one) => `${AFFINITY}.${one}`).join(','),
];

testIf(needsHelmAndCluster, 'an API server takes what the chart makes, with each option', (t) => {
  const namespace = makeNamespace(t);
  for (const set of ['', ...OPTIONS, OPTIONS.filter((option) => !option.endsWith('=false')).join(',')]) {
    const manifests = render(t, set === '' ? [] : ['--set', set], namespace);
    const { status, stderr } = dryRun(manifests);
    t.is(status, 0, `${set}: ${stderr}`);
  }
});

testIf(needsHelm, 'PodMonitor and SecurityContextConstraints are made where they are asked for', (t) => {
  const manifests = render(t, ['--set', 'podMonitor.enabled=true,podMonitor.labels.release=prometheus,openshift.enabled=true']);
  t.is(at(find(t, manifests, 'PodMonitor'), 'metadata.labels.release'), 'prometheus');
  t.deepEqual(at(find(t, manifests, 'SecurityContextConstraints'), 'users'), ['system:serviceaccount:signet-system:signet']);
  t.is(at(find(t, manifests, 'DaemonSet'), 'spec.template.spec.securityContext.seLinuxOptions.type'), 'spc_t');
});

testIf(needsHelmAndCluster, 'the CA that the chart makes stays through upgrades, and somebody else\'s is left alone', (t) => {
  const namespace = makeNamespace(t);
  const kubeconfig = process.env['SIGNET_TEST_KUBECONFIG'] ?? '';
  const mode = ['--dry-run=server', '--kubeconfig', kubeconfig];
  const secretsIn = (): Manifest[] => {
    const { status, stdout, stderr } = template(namespace, [...REQUIRED, '--set', 'ca.generate=true,crds.install=false'], [...OFFLINE, ...mode]);
    t.is(status, 0, stderr);
    return parse(stdout).filter(({ kind }) => kind === 'Secret');
  };
  const [first, second] = [secretsIn()[0], secretsIn()[0]];
  t.notDeepEqual(at(first, 'data'), at(second, 'data'), 'nothing is there yet');
  if (first === undefined) return;
  const owner = { 'meta.helm.sh/release-name': 'signet', 'meta.helm.sh/release-namespace': namespace };
  const owned = structuredClone(first);
  Object.assign((owned.metadata.annotations ??= {}), owner);
  make(t, [owned]);
  t.deepEqual(at(secretsIn()[0], 'data'), at(first, 'data'));
  t.is(secretsIn()[0]?.metadata.annotations?.['helm.sh/resource-policy'], 'keep');
  const foreign = { ...structuredClone(first), metadata: { name: 'foreign-ca', namespace } };
  make(t, [foreign]);
  const args = [...REQUIRED, '--set', 'ca.generate=true,ca.existingSecret=foreign-ca'];
  const { stdout } = template(namespace, args, [...OFFLINE, ...mode]);
  t.deepEqual(namesOf(parse(stdout)).filter((name) => name.startsWith('Secret/')), []);
});
