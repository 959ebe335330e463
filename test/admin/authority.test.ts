import test, { type ExecutionContext } from 'ava';
import type { AuthorityView, OrderAnswer } from '../../src/admin/messages.ts';
import type { AuthorityControl } from '../../src/admin/source.ts';
import { EmbeddedAuthority } from '../../src/authority/embedded.ts';
import { SignetError } from '../../src/errors.ts';
import { EventBus, type CommandedFact } from '../../src/events.ts';
import { systemRandom } from '../../src/random.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { temporaryDirectory } from '../support/kernel-processes.ts';
import { trustDomain } from '../support/node-authorities.ts';
import { filledSource } from './filled-source.ts';
import { ask, kernel, openAdmin, type Answered } from './operator.ts';

const MINUTE = 60_000;
const ME = { uid: process.geteuid?.() ?? -1, pid: process.pid };

interface Scene {
  readonly clock: FakeClock;
  readonly facts: CommandedFact[];
  readonly authority: EmbeddedAuthority;
  view(): Promise<AuthorityView>;
  order(command: string, body: object | string): Promise<Answered>;
}

/** The operator's socket of an agent with real keys; `overrides` stands for some of its orders. */
async function setUp(t: ExecutionContext, overrides: Partial<AuthorityControl['orders']> = {}): Promise<Scene> {
  const clock = new FakeClock();
  const tools = { clock, random: systemRandom, events: new EventBus() };
  const authority = await EmbeddedAuthority.open({ trustDomain, dataDir: temporaryDirectory(t), ttlMs: 24 * 60 * MINUTE }, tools);
  t.teardown(() => authority.close());
  const { orders: real } = authority;
  const orders: AuthorityControl['orders'] = {
    keys: () => real.keys(),
    roots: () => real.roots(),
    prepare: (order) => real.prepare(order),
    activate: (order) => real.activate(order),
    taint: (order) => real.taint(order),
    revoke: (order) => real.revoke(order),
    onTaint: (listener) => real.onTaint(listener),
    ...overrides,
  };
  const facts: CommandedFact[] = [];
  const { socketPath } = await openAdmin(t, filledSource({ overrides: { authority: { orders, commanded: (fact) => void facts.push(fact) } } }));
  return {
    clock,
    facts,
    authority,
    view: async () => (await ask(socketPath, '/v1/authority')).body as AuthorityView,
    order: (command, body) => {
      const text = typeof body === 'string' ? body : JSON.stringify(body);
      return ask(socketPath, `/v1/authority/${command}`, { method: 'POST', body: text });
    },
  };
}

const keyOf = ({ body }: Answered): string => (body as OrderAnswer).key?.id ?? '';

test('the keys are told with their states and times, and nothing of their private halves', async (t) => {
  const { view, authority } = await setUp(t);
  const answer = await view();
  const root = authority.issuer().subjectKeyId.toString('hex');
  t.deepEqual(answer.roots, []);
  t.deepEqual(answer.keys[0], {
    kind: 'x509',
    id: root,
    state: 'active',
    published_since: '2030-01-01T00:00:00Z',
    activates_at: '2030-01-01T00:00:00Z',
    leaves_at: '2030-01-02T00:00:00Z',
    not_after: '2030-01-02T00:00:00Z',
  });
  t.like(answer.keys[1], { kind: 'jwt', id: authority.jwtKey().kid, state: 'active' });
  t.notRegex(JSON.stringify(answer), /BEGIN|private/i);
});

test('prepare, activate, taint and revoke are obeyed, and each is told with who has ordered it', async (t) => {
  const { order, view, facts, clock, authority } = await setUp(t);
  const old = authority.jwtKey().kid;
  const prepared = await order('prepare', { kind: 'jwt' });
  t.like(prepared, { status: 200, body: { done: true, key: { kind: 'jwt', state: 'prepared', usable_from: '2030-01-01T00:03:00Z' } } });
  clock.advance(3 * MINUTE);
  t.like(await order('activate', { kind: 'jwt' }), { status: 200, body: { done: true, key: { id: keyOf(prepared), state: 'active' } } });
  t.like(await order('taint', { id: old }), { status: 200, body: { key: { id: old, state: 'tainted', leaves_at: '2030-01-01T00:04:00Z' } } });
  t.like(await order('revoke', { id: old }), { status: 200, body: { done: true } });
  t.deepEqual((await view()).keys.map(({ kind, state }) => `${kind} ${state}`), ['x509 active', 'jwt active']);
  t.deepEqual(facts, [
    { command: 'prepare', kind: 'jwt', id: keyOf(prepared), outcome: 'done', ...ME },
    { command: 'activate', kind: 'jwt', id: keyOf(prepared), outcome: 'done', ...ME },
    { command: 'taint', kind: 'jwt', id: old, outcome: 'done', ...ME },
    { command: 'revoke', kind: 'jwt', id: old, outcome: 'done', ...ME },
  ]);
});

test('an order that is refused says why and what to do, and is told too', async (t) => {
  const { order, facts, authority } = await setUp(t);
  const { kid } = authority.jwtKey();
  t.like(await order('activate', { kind: 'x509' }), {
    status: 409,
    body: { error: { code: 'order_refused', message: 'no key (x509) is prepared', next: 'prepare one first: "signet authority prepare x509"' } },
  });
  t.like(await order('taint', { id: kid }), { status: 409, body: { error: { code: 'order_refused' } } });
  t.like(await order('revoke', { id: 'ffffffff' }), { status: 404, body: { error: { code: 'no_such_key', message: 'there is no key "ffffffff"' } } });
  t.deepEqual(facts.map(({ command, outcome, id }) => [command, outcome, id]), [
    ['activate', 'refused', undefined],
    ['taint', 'refused', kid],
    ['revoke', 'refused', 'ffffffff'],
  ]);
  t.is(facts[0]?.detail, 'no key (x509) is prepared');
});

test('a dry run is not an order: it changes nothing and is not told of', async (t) => {
  const { order, view, facts } = await setUp(t);
  const before = await view();
  t.like(await order('prepare', { kind: 'x509', dry_run: true }), { status: 200, body: { done: false } });
  t.deepEqual([await view(), facts], [before, []]);
});

test('what is in force but could not be written is answered with 500 and told as failed', async (t) => {
  const error = new SignetError('state_unwritable', 'a restart would forget it');
  const { order, facts } = await setUp(t, { prepare: () => Promise.reject(error) });
  t.like(await order('prepare', { kind: 'x509' }), { status: 500, body: { error: { code: 'not_kept', message: 'a restart would forget it' } } });
  t.like(facts, { 0: { outcome: 'failed', detail: 'a restart would forget it' }, length: 1 });
});

const MALFORMED: readonly (readonly [command: string, body: object | string, message: RegExp])[] = [
  ['prepare', '', /not JSON/],
  ['prepare', '[]', /not a JSON object/],
  ['prepare', 'null', /not a JSON object/],
  ['prepare', {}, /kind is missing; allowed is x509 or jwt/],
  ['prepare', { kind: 'X509' }, /kind is "X509"/],
  ['prepare', { kind: 'jwt', force: true }, /"force" is not known in an order to prepare; known are kind, dry_run/],
  ['prepare', { kind: 'jwt', dry_run: 'yes' }, /dry_run is "yes"; allowed is true or false/],
  ['activate', { kind: 'jwt', id: 'abcdef' }, /"id" is not known/],
  ['activate', { kind: 'jwt', force: 1 }, /force is 1/],
  ['taint', { kind: 'jwt' }, /"kind" is not known/],
  ['taint', { id: 'abcde' }, /at least 6 characters/],
  ['taint', { id: '../../etc' }, /id is/],
  ['taint', { id: 'a'.repeat(129) }, /id is/],
  ['taint', { id: 7 }, /id is 7/],
  ['revoke', { id: 'abcdef', force: true }, /"force" is not known/],
];

for (const [command, body, message] of MALFORMED) {
  test(`POST /v1/authority/${command} with ${typeof body === 'string' ? JSON.stringify(body) : JSON.stringify(body).slice(0, 60)} is refused with 400, and is no order`, async (t) => {
    const { order, facts } = await setUp(t);
    const answer = await order(command, body);
    t.is(answer.status, 400);
    t.regex((answer.body as { error: { message: string } }).error.message, message);
    t.deepEqual(facts, []);
  });
}

test('an order is a POST to its own path', async (t) => {
  const { socketPath } = await openAdmin(t, filledSource());
  t.is((await ask(socketPath, '/v1/authority/taint')).status, 405);
  t.is((await ask(socketPath, '/v1/authority', { method: 'POST', body: '{}' })).status, 405);
  t.is((await ask(socketPath, '/v1/authority/destroy', { method: 'POST', body: '{}' })).status, 404);
  t.is((await ask(socketPath, '/v1/authority/taint?id=abcdef', { method: 'POST', body: '{}' })).status, 400);
});

test('an agent that holds no signing keys says so', async (t) => {
  const { socketPath } = await openAdmin(t, filledSource());
  t.like(await ask(socketPath, '/v1/authority'), { status: 409, body: { error: { code: 'no_authority' } } });
  const order = await ask(socketPath, '/v1/authority/prepare', { method: 'POST', body: '{"kind":"jwt"}' });
  t.like(order, { status: 409, body: { error: { code: 'no_authority' } } });
});

test('a user who is neither root nor the agent gives no orders and sees no keys', async (t) => {
  const stranger = new Proxy(kernel, {
    get: (target, name) => {
      if (name === 'peerCredentials') return () => ({ pid: 5, uid: 65_534, gid: 65_534, groups: [] });
      const member: unknown = Reflect.get(target, name);
      return typeof member === 'function' ? (member.bind(target) as unknown) : member;
    },
  });
  let touched = 0;
  const authority = new Proxy({} as AuthorityControl, { get: () => void (touched += 1) });
  const { socketPath } = await openAdmin(t, filledSource({ overrides: { authority } }), { kernel: stranger });
  t.is((await ask(socketPath, '/v1/authority')).status, 403);
  t.is((await ask(socketPath, '/v1/authority/prepare', { method: 'POST', body: '{"kind":"jwt"}' })).status, 403);
  t.is(touched, 0);
});
