import { existsSync, globSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { CORE_SCHEMA, load } from 'js-yaml';
import { testIf } from '../support/kernel-conditions.ts';
import { EXAMPLES, KUSTOMIZE, ROOT, at, find, findProgram, kustomize, namesOf, readManifests, run, texts } from './manifests.ts';

const kubectl = findProgram('kubectl') ?? '';
const needsKubectl = [kubectl !== '', 'needs kubectl'] as const;
const BASE = 'resources: [BASE]\n';
const CONTAINER = 'spec.template.spec.containers.0';

const COMPONENTS = readdirSync(join(KUSTOMIZE, 'components'));

testIf(needsKubectl, 'kustomize makes exactly the objects that an agent needs', (t) => {
  const names = namesOf(kustomize(t, kubectl, BASE)).map((name) => name.replace(/^(ConfigMap.*)-[a-z0-9]{10}$/, '$1-<hash>'));
  t.deepEqual(names, [
    'ClusterRole/signet',
    'ClusterRoleBinding/signet',
    'ConfigMap/signet-system/signet-<hash>',
    'CustomResourceDefinition/nodekeysets.signet.dev',
    'CustomResourceDefinition/nodereports.signet.dev',
    'DaemonSet/signet-system/signet',
    'FlowSchema/signet',
    'Namespace/signet-system',
    'NetworkPolicy/signet-system/signet',
    'Role/default/signet-events',
    'Role/signet-system/signet',
    'RoleBinding/default/signet-events',
    'RoleBinding/signet-system/signet',
    'ServiceAccount/signet-system/signet',
    'ValidatingAdmissionPolicy/signet-lease',
    'ValidatingAdmissionPolicy/signet-node-key-set',
    'ValidatingAdmissionPolicy/signet-node-report',
    'ValidatingAdmissionPolicyBinding/signet-lease',
    'ValidatingAdmissionPolicyBinding/signet-node-key-set',
    'ValidatingAdmissionPolicyBinding/signet-node-report',
  ]);
});

testIf(needsKubectl, 'the agent is neither privileged nor has it a capability or a port of the host', (t) => {
  const pod = at(find(t, kustomize(t, kubectl, BASE), 'DaemonSet'), 'spec.template.spec');
  t.is(at(pod, 'hostPID'), true);
  for (const absent of ['hostNetwork', 'hostIPC', 'shareProcessNamespace', 'hostUsers', 'initContainers']) t.is(at(pod, absent), undefined, absent);
  t.deepEqual(at(pod, 'containers.0.securityContext'), {
    privileged: false,
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    capabilities: { drop: ['ALL'] },
  });
  t.deepEqual(at(pod, 'securityContext'), { runAsUser: 0, runAsGroup: 0, seccompProfile: { type: 'RuntimeDefault' } });
  t.deepEqual(at(pod, 'containers.0.ports'), [{ name: 'telemetry', containerPort: 9464 }]);
  t.is(at(pod, 'automountServiceAccountToken'), false);
  t.is(at(pod, 'enableServiceLinks'), false);
});

testIf(needsKubectl, 'the agent has one directory of the host, and a token for an hour', (t) => {
  const volumes = at(find(t, kustomize(t, kubectl, BASE), 'DaemonSet'), 'spec.template.spec.volumes') as Record<string, unknown>[];
  const hosts = volumes.flatMap((volume) => (volume['hostPath'] === undefined ? [] : [volume['hostPath']]));
  t.deepEqual(hosts, [{ path: '/run/signet', type: 'DirectoryOrCreate' }]);
  const tokens = volumes.map((volume) => at(volume, 'projected.sources.0.serviceAccountToken')).filter((token) => token !== undefined);
  t.deepEqual(tokens, [{ path: 'token', expirationSeconds: 3600 }]);
});

testIf(needsKubectl, 'a new agent is there before the old one goes', (t) => {
  const daemonSet = find(t, kustomize(t, kubectl, BASE), 'DaemonSet');
  t.deepEqual(at(daemonSet, 'spec.updateStrategy'), { type: 'RollingUpdate', rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } });
  t.deepEqual(at(daemonSet, 'spec.template.spec.tolerations'), [{ operator: 'Exists' }]);
  for (const probe of ['startupProbe', 'livenessProbe', 'readinessProbe']) {
    const path = probe === 'readinessProbe' ? '/ready' : '/live';
    t.deepEqual(at(daemonSet, `${CONTAINER}.${probe}.httpGet`), { path, port: 'telemetry' }, probe);
  }
});

testIf(needsKubectl, 'the rights are exactly these', (t) => {
  const manifests = kustomize(t, kubectl, BASE);
  t.deepEqual(rightsOf(at(find(t, manifests, 'ClusterRole'), 'rules')), [
    'pods: get list watch',
    'namespaces: get list watch',
    'nodes: get list watch',
    'clusterspiffeids.spire.spiffe.io: get list watch',
    'clusterstaticentries.spire.spiffe.io: get list watch',
    'clusterspiffeids/status.spire.spiffe.io: patch',
    'clusterstaticentries/status.spire.spiffe.io: patch',
    'nodereports.signet.dev: get list watch create patch',
    'nodekeysets.signet.dev: get list watch create patch',
  ]);
  t.deepEqual(rightsOf(at(find(t, manifests, 'Role', 'signet'), 'rules')), [
    'leases.coordination.k8s.io signet-rule-status: get patch',
    'leases.coordination.k8s.io: create',
  ]);
  t.deepEqual(rightsOf(at(find(t, manifests, 'Role', 'signet-events'), 'rules')), ['events.events.k8s.io: create']);
});

for (const component of ['', ...COMPONENTS]) {
  testIf(needsKubectl, `no right runs programs, reads secrets or makes tokens: ${component === '' ? 'base' : component}`, (t) => {
    const text = component === '' ? BASE : `${BASE}components: [BASE/components/${component}]\n`;
    const roles = kustomize(t, kubectl, text).filter(({ kind }) => kind === 'ClusterRole' || kind === 'Role');
    t.is(roles.length, 3);
    const rights = roles.flatMap((role) => rightsOf(at(role, 'rules')));
    const forbidden = /\*|secrets|exec|attach|portforward|proxy|token|ephemeralcontainers|impersonate|escalate|bind|approve|sign:|delete/;
    const own = component === 'cert-manager' ? ['certificaterequests.cert-manager.io: create get list watch delete'] : [];
    t.deepEqual(rights.filter((right) => forbidden.test(right)), own, 'requests, which an admission policy narrows to those of the own node');
  });
}

testIf(needsKubectl, 'with the kubelet as the source no right on pods is left', (t) => {
  const manifests = kustomize(t, kubectl, `${BASE}components: [BASE/components/kubelet]\n`);
  const rights = rightsOf(at(find(t, manifests, 'ClusterRole'), 'rules'));
  t.deepEqual(rights.filter((right) => right.includes('pods')), ['nodes/pods: get']);
  const names = (at(find(t, manifests, 'DaemonSet'), `${CONTAINER}.env`) as { name: string }[]).map(({ name }) => name);
  t.deepEqual(names, ['NODE_NAME', 'POD_NAME', 'POD_NAMESPACE', 'POD_UID', 'NODE_IP']);
});

testIf(needsKubectl, 'one component adds one capability, and the others none', (t) => {
  for (const component of COMPONENTS) {
    const manifests = kustomize(t, kubectl, `${BASE}components: [BASE/components/${component}]\n`);
    const expected = component === 'executables' ? { drop: ['ALL'], add: ['SYS_PTRACE'] } : { drop: ['ALL'] };
    t.deepEqual(at(find(t, manifests, 'DaemonSet'), `${CONTAINER}.securityContext.capabilities`), expected, component);
  }
});

testIf(needsKubectl, 'all components together are a valid kustomization', (t) => {
  const list = COMPONENTS.map((name) => `BASE/components/${name}`).join(', ');
  const extra = kustomize(t, kubectl, `${BASE}components: [${list}]\n`).map(({ kind }) => kind);
  for (const kind of ['PodMonitor', 'CSIDriver', 'ResourceQuota', 'SecurityContextConstraints']) t.true(extra.includes(kind), kind);
});

testIf(needsKubectl, 'an overlay can replace the configuration, the image and the namespace', (t) => {
  const manifests = kustomize(
    t,
    kubectl,
    `namespace: elsewhere
resources: [BASE]
images: [{name: signet, newName: registry.example/signet, digest: "sha256:${'a'.repeat(64)}"}]
configMapGenerator: [{name: signet, namespace: signet-system, behavior: replace, literals: ["signet.yaml=trustDomain: prod.example.org"]}]
`,
  );
  const daemonSet = find(t, manifests, 'DaemonSet');
  const configMap = find(t, manifests, 'ConfigMap');
  t.is(at(daemonSet, `${CONTAINER}.image`), `registry.example/signet@sha256:${'a'.repeat(64)}`);
  t.deepEqual(at(configMap, 'data'), { 'signet.yaml': 'trustDomain: prod.example.org' });
  const volumes = at(daemonSet, 'spec.template.spec.volumes') as { name: string }[];
  t.is(at(volumes.find(({ name }) => name === 'config'), 'configMap.name'), configMap.metadata.name);
  t.is(at(find(t, manifests, 'ClusterRoleBinding'), 'subjects.0.namespace'), 'elsewhere');
});

test('the configuration is one that an agent takes', (t) => {
  const signet = join(ROOT, 'src/main.ts');
  const env = { ...process.env, NODE_NAME: 'node1', NODE_IP: '10.0.0.7' };
  const { status, stdout, stderr } = run(process.execPath, [signet, 'config', 'check', join(KUSTOMIZE, 'signet.yaml')], '', env);
  t.is(status, 0, `${stdout}${stderr}`);
});

test('probes, ports and paths agree with the configuration', (t) => {
  const config = load(readFileSync(join(KUSTOMIZE, 'signet.yaml'), 'utf8'), { schema: CORE_SCHEMA });
  const [daemonSet] = readManifests(join(KUSTOMIZE, 'daemonset.yaml'));
  const port = at(daemonSet, `${CONTAINER}.ports.0.containerPort`);
  t.true(String(at(config, 'telemetry.address')).endsWith(`:${String(port)}`));
  const mounts = (at(daemonSet, `${CONTAINER}.volumeMounts`) as { name: string; mountPath: string }[]).map(({ mountPath }) => mountPath);
  for (const [path, text] of texts(at(config, 'authority.files'))) {
    t.true(mounts.some((mount) => text.startsWith(`${mount}/`)), `${path}: ${text}`);
  }
  t.is(at(config, 'onSuperseded'), 'wait');
});

test('everything has one version', (t) => {
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
  const kustomization = load(readFileSync(join(KUSTOMIZE, 'kustomization.yaml'), 'utf8'), { schema: CORE_SCHEMA });
  t.is(at(kustomization, 'images.0.newTag'), version);
  for (const name of ['workload.yaml', 'workload-csi.yaml']) {
    const deployment = readManifests(join(EXAMPLES, name)).find(({ kind }) => kind === 'Deployment');
    t.is(at(deployment, `${CONTAINER}.image`), `signet:${version}`, name);
  }
});

test('a workload mounts the socket\'s directory read-only and is nobody special', (t) => {
  const deployment = readManifests(join(EXAMPLES, 'workload.yaml')).find(({ kind }) => kind === 'Deployment');
  const pod = at(deployment, 'spec.template.spec');
  t.deepEqual(at(pod, 'volumes'), [{ name: 'spiffe-workload-api', hostPath: { path: '/run/signet/public', type: 'Directory' } }]);
  t.is(at(pod, 'containers.0.volumeMounts.0.readOnly'), true);
  t.is(at(pod, 'securityContext.runAsNonRoot'), true);
  t.is(at(pod, 'hostPID'), undefined);
  const csi = readManifests(join(EXAMPLES, 'workload-csi.yaml')).find(({ kind }) => kind === 'Deployment');
  t.deepEqual(at(csi, 'spec.template.spec.volumes'), [{ name: 'spiffe-workload-api', csi: { driver: 'csi.spiffe.io', readOnly: true } }]);
});

test('every definition has a schema without holes and says what its fields are for', (t) => {
  const files = ['', 'spire'].flatMap((directory) =>
    readdirSync(join(KUSTOMIZE, 'crds', directory)).filter((name) => name.includes('_')).map((name) => join(KUSTOMIZE, 'crds', directory, name)),
  );
  t.is(files.length, 5);
  for (const file of files) {
    const [crd] = readManifests(file);
    t.is(at(crd, 'spec.scope'), 'Cluster');
    const text = readFileSync(file, 'utf8');
    t.notRegex(text, /x-kubernetes-preserve-unknown-fields|x-kubernetes-embedded-resource/, file);
    t.true((at(crd, 'spec.versions.0.additionalPrinterColumns') as unknown[]).length >= 3, file);
  }
});

test('what the comments and the guide send a reader to is there', (t) => {
  const files = globSync(['**/*.{yaml,md,sh}'], { cwd: KUSTOMIZE }).map((name) => readFileSync(join(KUSTOMIZE, name), 'utf8'));
  const named = new Set(files.flatMap((text) => text.match(/\bdeploy\/[a-z0-9/.-]*[a-z0-9]/g) ?? []));
  t.true(named.size >= 5);
  for (const path of named) t.true(existsSync(join(ROOT, path)), path);
});

/** `resource.group name: verbs`, one line for each resource of each rule. */
function rightsOf(rules: unknown): string[] {
  type Rule = Record<'apiGroups' | 'resources' | 'verbs', string[]> & { resourceNames?: string[] };
  return (rules as Rule[]).flatMap(({ apiGroups, resources, verbs, resourceNames = [] }) =>
    apiGroups.flatMap((group) =>
      resources.map((resource) => {
        const full = group === '' ? resource : `${resource}.${group}`;
        return `${[full, ...resourceNames].join(' ')}: ${verbs.join(' ')}`;
      }),
    ),
  );
}
