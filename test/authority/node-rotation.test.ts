import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { EventBus } from '../../src/events.ts';
import { createLog } from '../../src/log.ts';
import type { SignedX509 } from '../../src/spiffe/signing.ts';
import { FilesUpstream } from '../../src/upstream/files.ts';
import { caFiles, caTools, MountedSecret, testCa, type TestCa } from '../support/authorities.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { temporaryDirectory, until } from '../support/kernel-processes.ts';
import { isAccepted, openNodeAuthority, trustDomain, twoTiers, type Opened } from '../support/node-authorities.ts';

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;

interface Node extends Opened {
  readonly privateDir: string;
  readonly upstream: FilesUpstream;
  readonly changes: boolean[];
  /** Root certificates that its workloads believe. */
  roots(): readonly Buffer[];
}

/** One node of the trust domain; all share a clock, each has its own mount of the Secret. */
async function openNode(t: ExecutionContext, clock: FakeClock, secret: MountedSecret): Promise<Node> {
  const privateDir = join(temporaryDirectory(t), 'private');
  mkdirSync(privateDir, { mode: 0o700 });
  const files = { certificate: secret.path('tls.crt'), key: secret.path('tls.key'), roots: [secret.path('ca.crt')] };
  const upstream = await FilesUpstream.open({ trustDomain, files }, { clock, events: new EventBus(), log: createLog('silent'), ca: caTools });
  t.teardown(() => upstream.close());
  const opened = await openNodeAuthority(t, clock, upstream, { privateDir });
  const changes: boolean[] = [];
  opened.authority.onIssuerChange(({ isReplaced }) => void changes.push(isReplaced));
  return { ...opened, privateDir, upstream, changes, roots: () => opened.authority.current().x509Authorities };
}

const mount = (t: ExecutionContext, files: Readonly<Record<string, string>>): MountedSecret => new MountedSecret(join(temporaryDirectory(t), 'ca'), files);

/** A cluster of nodes whose every leaf that is still valid must be accepted by the workloads of every node at every moment. */
class Cluster {
  readonly clock: FakeClock;
  readonly nodes: readonly Node[];
  readonly #t: ExecutionContext;
  #leaves: SignedX509[] = [];
  looks = 0;

  constructor(t: ExecutionContext, clock: FakeClock, nodes: readonly Node[]) {
    this.#t = t;
    this.clock = clock;
    this.nodes = nodes;
  }

  /** Lets `ms` pass in steps of `stepMs`. */
  async live(ms: number, stepMs: number): Promise<void> {
    for (let passed = 0; passed < ms; passed += stepMs) {
      this.clock.advance(stepMs);
      this.#look();
      await Promise.all(this.nodes.map(({ upstream }) => upstream.look()));
      this.#look();
      // What became due while something else was made rings at once, and may make something due in turn.
      for (let round = 0; round < 3; round += 1) {
        await Promise.all(this.nodes.map(({ authority }) => authority.idle()));
        this.#look();
        this.clock.advance(0);
      }
      this.#leaves = this.#leaves.filter(({ notAfter }) => notAfter >= this.clock.now());
      for (const { leaf } of this.nodes) this.#leaves.push(await leaf());
      this.#look();
    }
  }

  #look(): void {
    const now = this.clock.now();
    for (const { chain, notAfter } of this.#leaves) {
      if (notAfter < now) continue;
      for (const [index, { roots }] of this.nodes.entries()) {
        this.looks += 1;
        if (!isAccepted(chain, roots(), now)) this.#t.fail(`node ${index} refuses a leaf at ${new Date(now).toISOString()}`);
      }
    }
  }
}

const signsUnder = async ({ leaf }: Node, ca: TestCa): Promise<boolean> => (await leaf()).chain[2]?.equals(ca.certificate) ?? false;

test('FED-02, FED-04: a rotation, root first and then the pair, which reaches one node 80 s before the other', async (t) => {
  const [first, second] = [await twoTiers('First'), await twoTiers('Second')];
  const clock = new FakeClock();
  const secrets = [mount(t, caFiles(first.ca, { roots: [first.root] })), mount(t, caFiles(first.ca, { roots: [first.root] }))];
  const nodes = [await openNode(t, clock, secrets[0]!), await openNode(t, clock, secrets[1]!)];
  const cluster = new Cluster(t, clock, nodes);
  const spread = async (files: Readonly<Record<string, string>>): Promise<void> => {
    for (const secret of secrets) {
      secret.update(files);
      await cluster.live(80 * SECOND, 10 * SECOND);
    }
  };
  await spread(caFiles(first.ca, { roots: [first.root, second.root] }));
  for (const node of nodes) {
    t.deepEqual(node.roots(), [first.root.certificate, second.root.certificate]);
    t.true(await signsUnder(node, first.ca));
  }
  await cluster.live(5 * MINUTE, 30 * SECOND);
  await spread(caFiles(second.ca, { roots: [first.root, second.root] }));
  for (const node of nodes) {
    t.true(await signsUnder(node, second.ca), 'its root was public long before');
    t.deepEqual(node.changes, [true]);
  }
  await cluster.live(2 * HOUR, 10 * MINUTE);
  await spread(caFiles(second.ca, { roots: [second.root] }));
  for (const node of nodes) t.deepEqual(node.roots(), [first.root.certificate, second.root.certificate], 'held while leaves under it may live');
  await cluster.live(25 * HOUR, HOUR);
  for (const node of nodes) t.deepEqual(node.roots(), [second.root.certificate]);
  t.true(cluster.looks > 1_000, `${cluster.looks} looks`);
});

test('FED-02: a pair that is swapped together with its root signs when that has been public for twice the spread', async (t) => {
  const [first, second] = [await twoTiers('First'), await twoTiers('Second')];
  const clock = new FakeClock();
  const secrets = [mount(t, caFiles(first.ca, { roots: [first.root] })), mount(t, caFiles(first.ca, { roots: [first.root] }))];
  const nodes = [await openNode(t, clock, secrets[0]!), await openNode(t, clock, secrets[1]!)];
  const cluster = new Cluster(t, clock, nodes);
  for (const secret of secrets) {
    secret.update(caFiles(second.ca, { roots: [second.root] }));
    await cluster.live(80 * SECOND, 5 * SECOND);
  }
  t.true(await signsUnder(nodes[0]!, first.ca), 'after 160 s');
  await cluster.live(30 * SECOND, 5 * SECOND);
  t.true(await signsUnder(nodes[0]!, second.ca), 'after 190 s');
  t.true(await signsUnder(nodes[1]!, first.ca), 'the other after 110 s');
  await cluster.live(90 * SECOND, 5 * SECOND);
  t.true(await signsUnder(nodes[1]!, second.ca));
  await cluster.live(26 * HOUR, HOUR);
  for (const node of nodes) t.deepEqual(node.roots(), [second.root.certificate]);
});

test('a new CA under the same root signs at once', async (t) => {
  const { root, ca } = await twoTiers('First');
  const next = await testCa({ parent: root });
  const clock = new FakeClock();
  const secret = mount(t, caFiles(ca, { roots: [root] }));
  const node = await openNode(t, clock, secret);
  secret.update(caFiles(next, { roots: [root] }));
  clock.advance(5 * SECOND);
  await until(() => node.changes.length === 1, 'it signs');
  t.true(await signsUnder(node, next));
});

test('a rotation that is taken back leaves the first CA signing', async (t) => {
  const [first, second] = [await twoTiers('First'), await twoTiers('Second')];
  const clock = new FakeClock();
  const secret = mount(t, caFiles(first.ca, { roots: [first.root] }));
  const node = await openNode(t, clock, secret);
  const cluster = new Cluster(t, clock, [node]);
  secret.update(caFiles(second.ca, { roots: [second.root] }));
  await cluster.live(MINUTE, 5 * SECOND);
  secret.update(caFiles(first.ca, { roots: [first.root] }));
  await cluster.live(10 * MINUTE, 30 * SECOND);
  t.true(await signsUnder(node, first.ca));
  await cluster.live(26 * HOUR, HOUR);
  t.deepEqual(node.roots(), [first.root.certificate]);
  t.false(node.changes.includes(true));
});

test('a restart in the middle of the overlap neither forgets nor shortens it', async (t) => {
  const [first, second] = [await twoTiers('First'), await twoTiers('Second')];
  const clock = new FakeClock();
  const secret = mount(t, caFiles(first.ca, { roots: [first.root] }));
  const node = await openNode(t, clock, secret);
  secret.update(caFiles(second.ca, { roots: [second.root] }));
  clock.advance(5 * SECOND);
  await until(() => node.steps.filter((step) => step === 'x509 prepared').length === 2, 'the next one is prepared');
  await node.authority.close();
  const { privateDir } = node;
  const again = { ...node, ...(await openNodeAuthority(t, clock, node.upstream, { privateDir })) };
  t.true(await signsUnder(again, first.ca));
  t.deepEqual(again.authority.current().x509Authorities, [first.root.certificate, second.root.certificate]);
  clock.advance(170 * SECOND);
  t.true(await signsUnder(again, first.ca));
  clock.advance(10 * SECOND);
  t.true(await signsUnder(again, second.ca));
});

test('when the old node CA ends before the overlap does, the new one signs early: an identity is better than none', async (t) => {
  const [first, second] = [await twoTiers('First'), await twoTiers('Second')];
  const clock = new FakeClock();
  const end = clock.now() + MINUTE;
  const ending = await testCa({ parent: first.root, to: end });
  const secret = mount(t, caFiles(ending, { roots: [first.root] }));
  const node = await openNode(t, clock, secret);
  secret.update(caFiles(second.ca, { roots: [second.root] }));
  clock.advance(5 * SECOND);
  await node.upstream.look();
  await node.authority.idle();
  t.is(node.roots().length, 2, 'both roots are public');
  t.true(await signsUnder(node, ending));
  clock.advance(55 * SECOND);
  t.true(await signsUnder(node, second.ca));
});
