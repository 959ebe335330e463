/** Agents on the API server that SIGNET_TEST_KUBECONFIG leads to, with definition, rights and policy under names of the test's own. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { decodeProtectedHeader } from 'jose';
import { NodeJwtSigner } from '../../src/authority/jwt-signer.ts';
import { SystemClock } from '../../src/clock.ts';
import { EventBus } from '../../src/events.ts';
import { KubernetesClient } from '../../src/kubernetes/api-client.ts';
import { hasStatus } from '../../src/kubernetes/api-error.ts';
import { kubeconfigCredentials } from '../../src/kubernetes/kubeconfig.ts';
import { pathOf, type Resource } from '../../src/kubernetes/resources.ts';
import { parseSpiffeId } from '../../src/spiffe/id.ts';
import { composeBundle } from '../../src/trust/composed-bundle.ts';
import { UnknownKeyError, validateJwt } from '../../src/trust/jwt-validation.ts';
import { PublishedJwtKeys } from '../../src/trust/published-jwt-keys.ts';
import { TrustStore } from '../../src/trust/trust-store.ts';
import { UnknownKeyWaits } from '../../src/trust/unknown-key-waits.ts';
import { eventually, kubeconfigWith, kubectlOk, kubectlRun, make, makeNamespace, needsCluster, unique } from '../deploy/kubernetes-cluster.ts';
import { at, KUSTOMIZE, parse, type Manifest } from '../deploy/manifests.ts';
import { testCa, type TestCa } from '../support/authorities.ts';
import { testIf } from '../support/kernel-conditions.ts';
import { until } from '../support/kubernetes-api.ts';
import { DAY, exampleOrg, INSTANCE, jwtKey, keySet, nodeCa, signedSet, type OwnJwtKey } from '../support/node-key-sets.ts';
import { keySetObject, OwnBundle, OwnKeys, publisherOf, watcher } from './nodes.ts';

const clock = new SystemClock();
const NODES = ['node-a', 'node-b', 'node-c'] as const;
const dates = { from: clock.now() - DAY, to: clock.now() + DAY };

interface Fleet {
  readonly resource: Resource;
  readonly root: TestCa;
  nameOf(node: string): string;
  /** An API client with the token of a pod on this node. */
  clientOf(node: string): KubernetesClient;
}

function read(file: string, group: string): Manifest[] {
  return parse(readFileSync(join(KUSTOMIZE, file), 'utf8').replaceAll('signet.dev', group));
}

async function makeFleet(t: ExecutionContext): Promise<Fleet> {
  const namespace = makeNamespace(t);
  const group = `${unique()}.test`;
  make(t, read('crds/signet.dev_nodekeysets.yaml', group));
  kubectlOk(['wait', '--for=condition=Established', '--timeout=30s', `crd/nodekeysets.${group}`]);
  await eventually(t, 'the API server serves the new resource', () => kubectlRun(['get', `nodekeysets.${group}`]).status === 0);
  const policies = read('node-key-set-policy.yaml', group).map((one) => {
    const copy = structuredClone(one);
    copy.metadata.name += `-${namespace}`;
    const spec = copy['spec'] as Record<string, unknown>;
    if (spec['policyName'] !== undefined) spec['policyName'] = copy.metadata.name;
    return copy;
  });
  const rbac = 'rbac.authorization.k8s.io';
  const rules = [
    { apiGroups: [group], resources: ['nodekeysets'], verbs: ['get', 'list', 'watch', 'create', 'patch'] },
    { apiGroups: [''], resources: ['nodes'], verbs: ['get'] },
  ];
  const account = { kind: 'ServiceAccount', name: 'signet', namespace };
  const pod = (node: string): Manifest => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: node, namespace },
    spec: { serviceAccountName: 'signet', automountServiceAccountToken: false, nodeName: `${namespace}-${node}`, containers: [{ name: 'agent', image: 'localhost/none:1' }], tolerations: [{ operator: 'Exists' }] },
  });
  make(t, [
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'signet', namespace } },
    { apiVersion: `${rbac}/v1`, kind: 'ClusterRole', metadata: { name: namespace }, rules },
    { apiVersion: `${rbac}/v1`, kind: 'ClusterRoleBinding', metadata: { name: namespace }, roleRef: { apiGroup: rbac, kind: 'ClusterRole', name: namespace }, subjects: [account] },
    ...policies,
    ...NODES.map(pod),
  ]);
  const clients = new Map(NODES.map((node) => {
    const uid = kubectlOk(['get', 'pod', node, '-n', namespace, '-o', 'jsonpath={.metadata.uid}']);
    const bound = ['--bound-object-kind', 'Pod', '--bound-object-name', node, '--bound-object-uid', uid];
    const token = kubectlOk(['create', 'token', 'signet', '-n', namespace, ...bound]).trim();
    const client = new KubernetesClient({ credentials: kubeconfigCredentials(kubeconfigWith(t, token)), clock });
    t.teardown(() => client.close());
    return [node as string, client] as const;
  }));
  const clientOf = (node: string): KubernetesClient => {
    const client = clients.get(node);
    if (client === undefined) throw new Error(node);
    return client;
  };
  const fleet = { resource: { name: 'nodekeysets', path: `/apis/${group}/v1alpha1/nodekeysets` }, root: await testCa(dates), nameOf: (node: string) => `${namespace}-${node}`, clientOf };
  await eventually(t, 'the policy is in force', () => {
    const other = object(fleet, 'a.b.c', 'node-b');
    const config = kubeconfigWith(t, kubectlOk(['create', 'token', 'signet', '-n', namespace]).trim());
    return kubectlRun(['create', '--dry-run=server', '-f', '-'], JSON.stringify(other), config).stderr.includes('the token names no node');
  });
  return fleet;
}

function object({ resource, nameOf }: Fleet, jws: string, node: string): Manifest {
  const [, , group = ''] = resource.path.split('/');
  return { ...keySetObject(jws, nameOf(node)), apiVersion: `${group}/v1alpha1` } as unknown as Manifest;
}

interface Agent {
  readonly own: OwnKeys;
  readonly bundle: OwnBundle;
  readonly trust: TrustStore;
  readonly refused: () => number;
  isPublished(kid: string): boolean;
  rotate(keys: readonly OwnJwtKey[], active: OwnJwtKey): void;
  sign(): Promise<string>;
  /** Validates as the service does: an unknown key is waited for once. True when there was no need to. */
  validate(token: string): Promise<boolean>;
  close(): Promise<void>;
}

/** What an agent of a node has of all this. */
async function startAgent(t: ExecutionContext, fleet: Fleet, node: string): Promise<Agent> {
  const first = await jwtKey(clock.now() + DAY, 0);
  let [all, active]: [readonly OwnJwtKey[], OwnJwtKey] = [[first], first];
  const [own, bundle] = [new OwnKeys(all, await nodeCa(fleet.root, dates)), new OwnBundle([fleet.root], all)];
  const client = fleet.clientOf(node);
  const { keys } = watcher(t, client, bundle, clock, { resource: fleet.resource });
  const { publisher } = publisherOf(t, own, clock, { client, known: keys, node: fleet.nameOf(node), resource: fleet.resource });
  const trust = new TrustStore(composeBundle(bundle, keys), new EventBus());
  const waits = new UnknownKeyWaits(trust, clock, { timeoutMs: 10_000 });
  const source = new PublishedJwtKeys({ ready: () => Promise.resolve(), jwtKey: () => active, jwtKeys: () => all }, publisher, clock);
  const signer = new NodeJwtSigner(source, exampleOrg, undefined, clock);
  keys.start();
  publisher.start();
  const check = (token: string): void => void validateJwt(token, 'x', (name) => trust.bundleOf(name), clock.now());
  return {
    own,
    bundle,
    trust,
    refused: () => keys.status.refused,
    isPublished: (kid) => publisher.isPublished(kid),
    rotate: (next, signs) => {
      [all, active] = [next, signs];
      bundle.become({ jwtAuthorities: next });
      own.become(next);
    },
    sign: async () => (await signer.sign({ id: parseSpiffeId(`spiffe://example.org/${node}`), audience: ['x'], ttlMs: 300_000 }, new AbortController().signal)).token,
    validate: async (token) => {
      try {
        check(token);
        return true;
      } catch (error) {
        if (!(error instanceof UnknownKeyError)) throw error;
        if ((await waits.wait(error.kid, node)) !== true) throw error;
        check(token);
        return false;
      }
    },
    close: async () => {
      waits.close();
      trust.close();
      await publisher.close();
      await keys.close();
    },
  };
}

testIf(needsCluster, 'a token of any of three agents is valid at the others from the first one, through rotations and after its agent is gone', async (t) => {
  const fleet = await makeFleet(t);
  const agents = await Promise.all(NODES.map((node) => startAgent(t, fleet, node)));
  const everywhere = async (token: string, what: string): Promise<void> => {
    for (const [index, agent] of agents.entries()) t.true(await agent.validate(token), `${what}: at ${NODES[index]}`);
  };
  // Signed two seconds after its key was written: all have heard of it by then.
  for (const [index, agent] of agents.entries()) await everywhere(await agent.sign(), `the first token of ${NODES[index]}`);
  t.is(agents[0]?.trust.own().jwtAuthorities.length, 3);

  const [a, b, c] = agents;
  if (a === undefined || b === undefined || c === undefined) throw new Error('three agents');
  const before = await a.sign();
  const [old, next] = [a.own.keys()[0] as OwnJwtKey, await jwtKey(clock.now() + DAY, 1)];
  a.rotate([old, next], next);
  await everywhere(await a.sign(), 'signed with the old key while the new one is published');
  await until(() => b.trust.own().jwtAuthorities.some(({ kid }) => kid === next.kid), 'the new key at b');
  await until(() => a.isPublished(next.kid), 'that the new key may sign');
  const last = await a.sign();
  t.is(decodeProtectedHeader(last).kid, next.kid);
  await everywhere(last, 'after the rotation');
  await everywhere(before, 'from before the rotation');

  a.rotate([next], next);
  const knows = ({ trust }: Agent): boolean => trust.own().jwtAuthorities.some(({ kid }) => kid === old.kid);
  await until(() => !knows(a) && !knows(b) && !knows(c), 'that the old key, which a has given up, is believed nowhere');
  await everywhere(last, 'after the old key was given up');
  await a.close();
  await fleet.clientOf('node-b').get(pathOf(fleet.resource, `${fleet.nameOf('node-a')}.${INSTANCE}`));
  kubectlOk(['delete', `nodekeysets.${fleet.resource.path.split('/')[2]}`, `${fleet.nameOf('node-a')}.${INSTANCE}`]);
  for (const agent of [b, c]) t.true(await agent.validate(last), 'of the agent that is gone');
  const late = await startAgent(t, fleet, 'node-a');
  await t.notThrowsAsync(late.validate(await b.sign()), 'an agent that starts hears of b');
  await Promise.all([b.close(), c.close(), late.close()]);
});

testIf(needsCluster, 'an agent writes the keys of its own node only, and what is forged is believed nowhere', async (t) => {
  const fleet = await makeFleet(t);
  const [client, key] = [fleet.clientOf('node-a'), await jwtKey(clock.now() + DAY)];
  const path = (node: string): string => pathOf(fleet.resource, `${fleet.nameOf(node)}.${INSTANCE}`);
  const ca = await nodeCa(fleet.root, dates);
  const set = (node: string, by = ca): string => signedSet(by, keySet([key], { node: fleet.nameOf(node), issuedAt: clock.now() }));
  const apply = (node: string, jws: string): Promise<unknown> =>
    client.apply(path(node), object(fleet, jws, node) as never, { fieldManager: 'test', force: true });

  const error = await t.throwsAsync(apply('node-b', set('node-b')));
  t.true(hasStatus(error, 403), error?.message);
  t.regex(error?.message ?? '', new RegExp(`the agent on node ${fleet.nameOf('node-a')} may write NodeKeySets of ${fleet.nameOf('node-a')}, not ${fleet.nameOf('node-b')}`));
  await t.notThrowsAsync(apply('node-a', set('node-a')));
  // Under its own name, but for another node.
  const own = object(fleet, set('node-b'), 'node-a');
  const disguised = { ...own, spec: { ...(own['spec'] as object), node: fleet.nameOf('node-b') } };
  t.true(hasStatus(await t.throwsAsync(client.apply(path('node-a'), disguised as never, { fieldManager: 'test', force: true })), 403, 422));
  t.true(hasStatus(await t.throwsAsync(client.delete(path('node-a'))), 403));

  const b = await startAgent(t, fleet, 'node-b');
  await until(() => b.trust.own().jwtAuthorities.some(({ kid }) => kid === key.kid), 'the good set of a');
  const forged = await jwtKey(clock.now() + DAY);
  const foreign = await nodeCa(await testCa(dates), dates);
  make(t, [object(fleet, signedSet(foreign, keySet([forged], { node: fleet.nameOf('node-c'), issuedAt: clock.now() })), 'node-c')]);
  await until(() => b.refused() === 1, 'that the forged set is refused');
  t.false(b.trust.own().jwtAuthorities.some(({ kid }) => kid === forged.kid));
  await b.close();
});

testIf(needsCluster, 'the definition takes what an agent writes and refuses the rest', async (t) => {
  const fleet = await makeFleet(t);
  const create = (change: (one: Manifest) => void): string => {
    const one = object(fleet, 'a.b.c', 'node-a');
    change(one);
    return kubectlRun(['create', '--dry-run=server', '-f', '-'], JSON.stringify(one)).stderr;
  };
  const spec = (one: Manifest): Record<string, unknown> => one['spec'] as Record<string, unknown>;
  t.is(create(() => undefined), '');
  t.is(create((one) => (spec(one)['jws'] = `${'a'.repeat(16_380)}.b.c`)), '');
  t.regex(create((one) => (spec(one)['jws'] = `${'a'.repeat(16_381)}.b.c`)), /Too long|may not be (more|longer) than 16384/);
  t.regex(create((one) => (spec(one)['jws'] = 'a.b')), /spec\.jws in body should match/);
  t.regex(create((one) => (spec(one)['instance'] = 'pod')), /spec\.instance in body should match/);
  t.regex(create((one) => (one.metadata.name = 'other.0123456789ab')), /the name must be that of the node, a dot, and the instance/);
  t.regex(create((one) => delete spec(one)['jws']), /jws/);
  t.is(at(object(fleet, 'a', 'node-a'), 'spec.instance'), INSTANCE);
});
