import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { ObeyedOrder, OrderResult, Taint } from '../../src/authority/orders.ts';
import { SignetError } from '../../src/errors.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { temporaryDirectory, until } from '../support/kernel-processes.ts';
import { isAccepted, openNodeAuthority, ScriptedSource, twoTiers, type Opened } from '../support/node-authorities.ts';

const SECOND = 1_000;
const MINUTE = 60 * SECOND;

interface Scene extends Opened {
  readonly clock: FakeClock;
  readonly upstream: ScriptedSource;
  readonly privateDir: string;
  readonly taints: Taint[];
  /** The ID of the node CA that signs now. */
  signing(): string;
  /** The same after a restart. */
  again(): Promise<Scene>;
}

async function setUp(t: ExecutionContext): Promise<Scene> {
  const privateDir = join(temporaryDirectory(t), 'private');
  mkdirSync(privateDir, { mode: 0o700 });
  const clock = new FakeClock();
  const { root, ca } = await twoTiers('First');
  return open(t, clock, new ScriptedSource(clock, ca, [root]), privateDir);
}

async function open(t: ExecutionContext, clock: FakeClock, upstream: ScriptedSource, privateDir: string): Promise<Scene> {
  const opened = await openNodeAuthority(t, clock, upstream, { privateDir });
  const taints: Taint[] = [];
  opened.authority.orders.onTaint((taint) => void taints.push(taint));
  const again = async (): Promise<Scene> => {
    await opened.authority.close();
    return open(t, clock, upstream, privateDir);
  };
  return { ...opened, clock, upstream, privateDir, taints, signing: () => opened.authority.issuer().subjectKeyId.toString('hex'), again };
}

async function done(order: Promise<OrderResult>): Promise<ObeyedOrder> {
  const result = await order;
  if (result.kind === 'refused') throw new Error(`${result.why}; ${result.next}`);
  return result;
}

test('the CA of the node, its JWT key and the roots above are shown, with what each waits for', async (t) => {
  const { authority, signing, clock } = await setUp(t);
  const keys = authority.orders.keys();
  t.like(keys, { 0: { kind: 'x509', id: signing(), state: 'active' }, 1: { kind: 'jwt', id: authority.jwtKey().kid, state: 'active' }, length: 2 });
  t.is(keys[0]?.publishedSince, undefined, 'it is in no bundle');
  const [root] = authority.orders.roots();
  t.like(root, { subject: 'CN=First root', since: clock.now(), usableFrom: clock.now() + 180 * SECOND });
});

test('to prepare a root is refused, and the operator of the CA above is named as the one who does', async (t) => {
  const { authority } = await setUp(t);
  const result = await authority.orders.prepare({ kind: 'x509' });
  t.like(result, { kind: 'refused', why: 'the root is not the agent\'s own: it has none to prepare' });
  t.regex(JSON.stringify(result), /authority\.files\.roots/);
  t.regex(JSON.stringify(await authority.orders.activate({ kind: 'x509' })), /follow one another by themselves/);
  t.regex(JSON.stringify(await authority.orders.revoke({ id: authority.orders.keys()[0]!.id })), /in no bundle/);
});

test('a tainted node CA is replaced by another from above at once, is deleted, and all leaves are to be replaced', async (t) => {
  const { authority, signing, leaf, upstream, taints, privateDir, steps, clock } = await setUp(t);
  const old = signing();
  const oldLeaf = await leaf();
  const bundle = authority.current();
  const { key, says } = await done(authority.orders.taint({ id: old.slice(0, 10) }));
  t.like(key, { id: old, state: 'tainted' });
  t.regex(says.join(), /its key is deleted.*whoever has its key can sign what others believe until 2030-01-02/);
  t.is(upstream.count, 2);
  t.not(signing(), old);
  t.deepEqual(taints, [{ kind: 'x509', withinMs: 5_000 }]);
  t.is(authority.current(), bundle, 'the root is the same');
  t.is(authority.orders.keys().filter(({ kind }) => kind === 'x509').length, 1);
  const state = JSON.parse(readFileSync(join(privateDir, 'node-authority.json'), 'utf8')) as { nodeCas: unknown[] };
  t.is(state.nodeCas.length, 1);
  t.true(isAccepted((await leaf()).chain, authority.current().x509Authorities, clock.now()));
  t.true(isAccepted(oldLeaf.chain, authority.current().x509Authorities, clock.now()), 'nobody is cut off before he has another');
  t.deepEqual(steps.slice(-3), ['x509 prepared', 'x509 retired', 'x509 activated']);
});

test('a restart after the taint does not bring the node CA back', async (t) => {
  const scene = await setUp(t);
  const old = scene.signing();
  await done(scene.authority.orders.taint({ id: old }));
  const now = scene.signing();
  const second = await scene.again();
  t.is(second.signing(), now);
  t.is(second.upstream.count, 2, 'nothing is asked for again');
});

test('without another node CA to be had the one that signs is kept, unless it is forced', async (t) => {
  const { authority, signing, upstream, taints, clock, leaf } = await setUp(t);
  const old = signing();
  upstream.failure = new SignetError('authority_unavailable', 'it is away');
  const result = await authority.orders.taint({ id: old });
  t.like(result, { kind: 'refused', code: 'not_now', why: 'there is no other node CA to be had: it is away' });
  t.is(signing(), old);
  t.deepEqual(taints, []);
  const { says } = await done(authority.orders.taint({ id: old, force: true }));
  t.regex(says.join(), /nothing is signed until the CA above has signed another/);
  t.deepEqual(taints.length, 1);
  t.throws(() => authority.issuer(), { code: 'authority_unavailable' });
  await authority.idle();
  upstream.failure = undefined;
  upstream.changed();
  await authority.idle();
  t.not(signing(), old);
  t.true(isAccepted((await leaf()).chain, authority.current().x509Authorities, clock.now()));
});

test('a CA above that does not answer holds an order up for ten seconds', async (t) => {
  const { authority, signing, upstream, clock } = await setUp(t);
  const old = signing();
  upstream.gate = new Promise(() => undefined);
  const order = authority.orders.taint({ id: old });
  await until(() => upstream.count === 2, 'it is asked');
  clock.advance(10 * SECOND);
  t.like(await order, { kind: 'refused', why: 'there is no other node CA to be had: the CA above has not answered within 10 s' });
  t.is(signing(), old);
});

test('another node CA under a root that is not everywhere yet does not take the place of a tainted one, unless it is forced', async (t) => {
  const { authority, signing, upstream } = await setUp(t);
  const old = signing();
  const second = await twoTiers('Second');
  [upstream.ca, upstream.above] = [second.ca, [second.root]];
  t.regex(JSON.stringify(await authority.orders.taint({ id: old })), /under a root that may not be everywhere before 2030-01-01T00:03:00Z/);
  t.is(signing(), old);
  t.is(authority.orders.roots().length, 2, 'its root is in the bundle from now on');
});

test('a node CA that waits for its root to be everywhere is activated by hand only when it is forced', async (t) => {
  const { authority, signing, upstream, clock, leaf } = await setUp(t);
  const old = signing();
  const second = await twoTiers('Second');
  [upstream.ca, upstream.above] = [second.ca, [second.root]];
  upstream.changed();
  await authority.idle();
  t.deepEqual(authority.orders.keys().filter(({ kind }) => kind === 'x509').map(({ state }) => state), ['active', 'prepared']);
  t.regex(JSON.stringify(await authority.orders.activate({ kind: 'x509' })), /may not be everywhere before 2030-01-01T00:03:00Z/);
  t.is(signing(), old);
  await done(authority.orders.activate({ kind: 'x509', force: true }));
  t.not(signing(), old);
  const { chain } = await leaf();
  t.true(chain[1] !== undefined && isAccepted(chain, authority.current().x509Authorities, clock.now()));
  t.true(isAccepted(chain, [second.root.certificate], clock.now()));
});

test('FED-02 to FED-04: the JWT key is prepared, activated, tainted and gone, with a restart between any two steps', async (t) => {
  let scene = await setUp(t);
  const kids = (): string[] => scene.authority.current().jwtAuthorities.map(({ kid }) => kid);
  const states = (): string[] => scene.authority.orders.keys().filter(({ kind }) => kind === 'jwt').map(({ state }) => state);
  const restart = async (): Promise<void> => {
    const before = [kids(), states(), scene.authority.jwtKey().kid];
    scene = await scene.again();
    t.deepEqual([kids(), states(), scene.authority.jwtKey().kid], before);
  };
  const old = scene.authority.jwtKey().kid;
  const { key } = await done(scene.authority.orders.prepare({ kind: 'jwt' }));
  const next = key?.id ?? '';
  t.deepEqual(kids(), [old, next]);
  t.is(scene.authority.jwtKey().kid, old);
  await restart();
  t.like(await scene.authority.orders.activate({ kind: 'jwt' }), { kind: 'refused', code: 'not_now' });
  scene.clock.advance(3 * MINUTE);
  await restart();
  await done(scene.authority.orders.activate({ kind: 'jwt' }));
  t.is(scene.authority.jwtKey().kid, next);
  await restart();
  await done(scene.authority.orders.taint({ id: old }));
  t.deepEqual(scene.taints, [{ kind: 'jwt', kid: old }]);
  t.deepEqual(states(), ['tainted', 'active']);
  await restart();
  scene.clock.advance(59 * SECOND);
  t.deepEqual(kids(), [old, next]);
  scene.clock.advance(2 * SECOND);
  await until(() => kids().length === 1, 'it has left the bundle');
  await scene.authority.idle();
  await restart();
  t.deepEqual(kids(), [next]);
});

test('orders about the JWT key do not wait for a CA above that does not answer', async (t) => {
  const { authority, upstream, clock } = await setUp(t);
  const old = authority.jwtKey().kid;
  await done(authority.orders.prepare({ kind: 'jwt' }));
  upstream.gate = new Promise(() => undefined);
  // Past half of its life the node CA is renewed, which hangs.
  clock.advance(15 * 60 * MINUTE);
  await until(() => (clock.advance(0), upstream.count === 2), 'it is asked');
  await done(authority.orders.taint({ id: old }));
  t.not(authority.jwtKey().kid, old);
  await done(authority.orders.revoke({ id: old }));
  t.deepEqual(authority.current().jwtAuthorities.map(({ kid }) => kid), [authority.jwtKey().kid]);
});
