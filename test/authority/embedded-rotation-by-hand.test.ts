import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { createLocalJWKSet, jwtVerify } from 'jose';
import test, { type ExecutionContext } from 'ava';
import { EmbeddedAuthority } from '../../src/authority/embedded.ts';
import { NodeJwtSigner } from '../../src/authority/jwt-signer.ts';
import { findKey, type KeyFact, type KeyState, type ObeyedOrder, type OrderResult, type Taint } from '../../src/authority/orders.ts';
import { NodeX509Signer } from '../../src/authority/x509-signer.ts';
import { EventBus, type Events, type SvidKind } from '../../src/events.ts';
import { systemRandom } from '../../src/random.ts';
import { parseSpiffeId } from '../../src/spiffe/id.ts';
import type { SignedJwt, SignedX509 } from '../../src/spiffe/signing.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { temporaryDirectory, until } from '../support/kernel-processes.ts';
import { isAccepted, trustDomain } from '../support/node-authorities.ts';
import { fixedKeys } from '../support/signers.ts';

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const TTL = 24 * HOUR;
const KINDS: readonly SvidKind[] = ['x509', 'jwt'];
const STATE = 'embedded-authority.json';

const id = parseSpiffeId('spiffe://example.org/a');
const never = new AbortController().signal;

/** The embedded authority of an agent that may be started again, and what it has signed that is still in use. */
class Scene {
  readonly clock = new FakeClock();
  readonly directory: string;
  readonly failures: Events['authorityFailed'][] = [];
  readonly taints: Taint[] = [];
  #authority: EmbeddedAuthority | undefined;
  #leaves: SignedX509[] = [];
  #tokens: SignedJwt[] = [];
  looks = 0;

  constructor(t: ExecutionContext) {
    this.directory = temporaryDirectory(t);
    t.teardown(() => this.#authority?.close());
  }

  static async open(t: ExecutionContext, ttlMs = TTL): Promise<Scene> {
    const scene = new Scene(t);
    await scene.start(ttlMs);
    return scene;
  }

  get authority(): EmbeddedAuthority {
    if (this.#authority === undefined) throw new Error('it is not open');
    return this.#authority;
  }

  get orders(): EmbeddedAuthority['orders'] {
    return this.authority.orders;
  }

  get path(): string {
    return join(this.directory, STATE);
  }

  async start(ttlMs = TTL): Promise<void> {
    const events = new EventBus();
    events.on('authorityFailed', (fact) => void this.failures.push(fact));
    const tools = { clock: this.clock, random: systemRandom, events };
    this.#authority = await EmbeddedAuthority.open({ trustDomain, dataDir: this.directory, ttlMs }, tools);
    // What identities do: they give out nothing any more that a tainted key has signed.
    this.#authority.orders.onTaint((taint) => {
      this.taints.push(taint);
      if (taint.kind === 'x509') this.#leaves = [];
      else this.#tokens = this.#tokens.filter(({ kid }) => kid !== taint.kid);
    });
  }

  async restart(): Promise<void> {
    await this.authority.close();
    await this.start();
  }

  keys(kind: SvidKind, state?: KeyState): readonly KeyFact[] {
    return this.orders.keys().filter((key) => key.kind === kind && (state === undefined || key.state === state));
  }

  states(kind: SvidKind): readonly KeyState[] {
    return this.keys(kind).map(({ state }) => state);
  }

  /** The ID of the one key in this state. */
  only(kind: SvidKind, state: KeyState): string {
    const [key, ...others] = this.keys(kind, state);
    if (key === undefined || others.length > 0) throw new Error(`${others.length + 1} keys are ${state}`);
    return key.id;
  }

  /** The ID of the key that signs now, from what it signs and not from what is told. */
  async signing(kind: SvidKind): Promise<string> {
    if (kind === 'jwt') return (await this.token()).kid ?? '';
    await this.leaf();
    return this.authority.issuer().subjectKeyId.toString('hex');
  }

  /** Whether the key is in the bundle that clients hold. */
  isPublic(kind: SvidKind, key: string): boolean {
    const { x509Authorities, jwtAuthorities } = this.authority.current();
    if (kind === 'jwt') return jwtAuthorities.some(({ kid }) => kid === key);
    return x509Authorities.some((der) => der.includes(Buffer.from(key, 'hex')));
  }

  async leaf(): Promise<SignedX509> {
    const { publicKey } = await fixedKeys();
    const signer = new NodeX509Signer(this.authority, trustDomain, this.clock, systemRandom);
    const leaf = await signer.sign({ id, publicKey, ttlMs: HOUR, dnsNames: [], csr: () => Promise.reject(new Error('nobody asks for it')) }, never);
    this.#leaves.push(leaf);
    return leaf;
  }

  async token(): Promise<SignedJwt> {
    const token = await new NodeJwtSigner(this.authority, trustDomain, undefined, this.clock).sign({ id, audience: ['x'], ttlMs: 10 * MINUTE }, never);
    this.#tokens.push(token);
    return token;
  }

  /** Signs one of each kind, and fails when anything that is in use does not verify with the bundle of this moment. */
  async look(t: ExecutionContext): Promise<void> {
    await this.leaf();
    await this.token();
    const now = this.clock.now();
    const { x509Authorities, jwtAuthorities } = this.authority.current();
    this.#leaves = this.#leaves.filter(({ notAfter }) => notAfter > now);
    this.#tokens = this.#tokens.filter(({ expiresAt }) => expiresAt > now);
    for (const { chain } of this.#leaves) if (!isAccepted(chain, x509Authorities, now)) t.fail(`a leaf is refused at ${new Date(now).toISOString()}`);
    const keys = createLocalJWKSet({ keys: jwtAuthorities.map(({ kid, jwk }) => ({ ...jwk, kid })) as never });
    for (const { token } of this.#tokens) await jwtVerify(token, keys, { currentDate: new Date(now) });
    this.looks += this.#leaves.length + this.#tokens.length;
  }

  /** Lets `ms` pass in steps, looking at each. */
  async live(t: ExecutionContext, ms: number, stepMs: number): Promise<void> {
    for (let passed = 0; passed < ms; passed += stepMs) {
      this.clock.advance(stepMs);
      // What became due happens in the turns of the event loop that follow.
      for (let turn = 0; turn < 10; turn += 1) await new Promise((resolve) => setImmediate(resolve));
      await this.look(t);
    }
  }
}

async function done(order: Promise<OrderResult>): Promise<ObeyedOrder> {
  const result = await order;
  if (result.kind === 'refused') throw new Error(`${result.why}; ${result.next}`);
  return result;
}

for (const kind of KINDS) {
  test(`FED-02, FED-03: a prepared key (${kind}) is in the bundle and does not sign; activated it does, and the old one stays`, async (t) => {
    const scene = await Scene.open(t);
    const old = await scene.signing(kind);
    const { key, says } = await done(scene.orders.prepare({ kind }));
    t.is(key?.state, 'prepared');
    t.is(key?.usableFrom, (key?.publishedSince ?? 0) + 180 * SECOND);
    t.regex(says.join(), /does not sign yet.*activated from 2030-01-01T00:03:00Z.*by itself it signs from 2030-01-01T16:00:00Z/);
    t.true(scene.isPublic(kind, key!.id));
    t.is(await scene.signing(kind), old);
    await scene.live(t, 4 * MINUTE, MINUTE);
    t.is(await scene.signing(kind), old);
    const activated = await done(scene.orders.activate({ kind }));
    t.like(activated.key, { id: key?.id, state: 'active' });
    t.is(await scene.signing(kind), key!.id);
    t.deepEqual(scene.states(kind), ['old', 'active']);
    t.true(scene.isPublic(kind, old));
    await scene.live(t, 3 * HOUR, 30 * MINUTE);
    t.true(scene.isPublic(kind, old));
    t.deepEqual(scene.taints, []);
  });

  test(`a prepared key (${kind}) that nobody activates signs by itself when its time has come`, async (t) => {
    const scene = await Scene.open(t);
    const { key } = await done(scene.orders.prepare({ kind }));
    await scene.live(t, 15 * HOUR, 3 * HOUR);
    t.not(await scene.signing(kind), key?.id);
    t.is(scene.keys(kind).length, 2, 'another one is not made at half of life');
    await scene.live(t, 2 * HOUR, HOUR);
    t.is(await scene.signing(kind), key!.id);
    await scene.live(t, 2 * TTL, 2 * HOUR);
    t.is(scene.keys(kind, 'active').length, 1);
  });

  test(`a tainted old key (${kind}) never signs again, what it has signed is replaced at once, and it leaves the bundle after a minute`, async (t) => {
    const scene = await Scene.open(t);
    const old = await scene.signing(kind);
    await done(scene.orders.prepare({ kind }));
    await scene.live(t, 4 * MINUTE, MINUTE);
    await done(scene.orders.activate({ kind }));
    const next = await scene.signing(kind);
    const { says } = await done(scene.orders.taint({ id: old }));
    t.regex(says.join(), /never signs again.*leaves the bundle at 2030-01-01T00:05:00Z/);
    t.deepEqual(scene.taints, [kind === 'x509' ? { kind, withinMs: 5_000 } : { kind, kid: old }]);
    t.deepEqual(scene.states(kind), ['tainted', 'active']);
    await scene.live(t, 50 * SECOND, 5 * SECOND);
    t.true(scene.isPublic(kind, old));
    await scene.live(t, 15 * SECOND, 5 * SECOND);
    t.false(scene.isPublic(kind, old));
    t.deepEqual(scene.states(kind), ['active']);
    t.is(await scene.signing(kind), next);
    // An agent that does not know of taints reads the file again; it is written a moment after the key has left.
    await until(() => !readFileSync(scene.path, 'utf8').includes('tainted'), 'a file without a taint');
    await scene.live(t, 2 * TTL, 2 * HOUR);
  });

  test(`when the key that signs (${kind}) is tainted, its successor signs before anybody is told to replace anything`, async (t) => {
    const scene = await Scene.open(t);
    const old = await scene.signing(kind);
    const { key } = await done(scene.orders.prepare({ kind }));
    await scene.live(t, 4 * MINUTE, MINUTE);
    const seen: string[] = [];
    scene.orders.onTaint(() => seen.push(kind === 'x509' ? scene.authority.issuer().subjectKeyId.toString('hex') : scene.authority.jwtKey().kid));
    const { says } = await done(scene.orders.taint({ id: old.slice(0, 8) }));
    t.true(says.includes(`${key?.id} signs from now on`));
    t.deepEqual(seen, [key?.id ?? '']);
    await scene.live(t, 2 * MINUTE, 10 * SECOND);
    t.deepEqual(scene.states(kind), ['active']);
    await scene.live(t, 2 * TTL, 2 * HOUR);
  });

  test(`a revoked key (${kind}) is out of the bundle at once`, async (t) => {
    const scene = await Scene.open(t);
    const old = await scene.signing(kind);
    await done(scene.orders.prepare({ kind }));
    scene.clock.advance(4 * MINUTE);
    await done(scene.orders.taint({ id: old }));
    t.true(scene.isPublic(kind, old));
    const { key } = await done(scene.orders.revoke({ id: old }));
    t.is(key?.id, old);
    t.false(scene.isPublic(kind, old));
    await scene.look(t);
    await scene.restart();
    t.false(scene.isPublic(kind, old));
    t.like(await scene.orders.revoke({ id: old }), { kind: 'refused', code: 'no_such_key' });
  });

  test(`a tainted prepared key (${kind}) never comes to sign, and another can be prepared`, async (t) => {
    const scene = await Scene.open(t);
    const first = await scene.signing(kind);
    const { key } = await done(scene.orders.prepare({ kind }));
    await done(scene.orders.taint({ id: key!.id }));
    t.like(await scene.orders.activate({ kind, force: true }), { kind: 'refused', why: `no key (${kind}) is prepared` });
    const { key: another } = await done(scene.orders.prepare({ kind }));
    t.not(another?.id, key?.id);
    await scene.live(t, 5 * MINUTE, MINUTE);
    t.is(await scene.signing(kind), first);
    t.deepEqual(scene.states(kind), ['active', 'prepared']);
  });

  test(`orders about keys (${kind}) that cannot be obeyed say what to do, and change nothing`, async (t) => {
    const scene = await Scene.open(t);
    const { orders } = scene;
    const old = await scene.signing(kind);
    const refused = async (order: Promise<OrderResult>, why: RegExp, next: RegExp): Promise<void> => {
      const [before, bundle] = [orders.keys(), scene.authority.current()];
      const result = await order;
      if (result.kind !== 'refused') return t.fail(`it was obeyed: ${why.source}`);
      t.regex(result.why, why);
      t.regex(result.next, next);
      t.deepEqual(orders.keys(), before);
      t.is(scene.authority.current(), bundle);
    };
    const unknown = kind === 'x509' ? /"ffffffff"/ : /"________"/;
    await refused(orders.taint({ id: kind === 'x509' ? 'ffffffff' : '________' }), unknown, /signet authority show/);
    await refused(orders.activate({ kind }), /is prepared/, new RegExp(`prepare ${kind}`));
    await refused(orders.activate({ kind, force: true }), /is prepared/, /prepare/);
    await refused(orders.taint({ id: old }), /nothing is prepared/, /prepare one first/);
    await refused(orders.taint({ id: old, force: true }), /nothing is prepared/, /prepare one first/);
    await refused(orders.revoke({ id: old }), /is relied on/, /taint it first/);
    const { key } = await done(orders.prepare({ kind }));
    await refused(orders.prepare({ kind }), new RegExp(`already: ${key?.id}`), /activate it from 2030-01-01T00:03:00Z/);
    await refused(orders.activate({ kind }), /until 2030-01-01T00:03:00Z there may be verifiers/, /--force/);
    await refused(orders.taint({ id: old }), /until 2030-01-01T00:03:00Z/, /--force/);
    await refused(orders.revoke({ id: key!.id }), /is relied on/, /taint it first/);
    scene.clock.advance(179 * SECOND);
    await refused(orders.activate({ kind }), /until 2030-01-01T00:03:00Z/, /try again then/);
    scene.clock.advance(SECOND);
    await done(orders.activate({ kind }));
    await done(orders.taint({ id: old }));
    await refused(orders.taint({ id: old }), /tainted already; it leaves the bundle at 2030-01-01T00:04:00Z/, /revoke/);
    t.deepEqual(scene.taints.length, 1);
  });

  test(`with --force a key (${kind}) is activated, or the one before it tainted, although not everybody has it`, async (t) => {
    const scene = await Scene.open(t);
    const old = await scene.signing(kind);
    const { key } = await done(scene.orders.prepare({ kind }));
    await done(scene.orders.activate({ kind, force: true }));
    t.is(await scene.signing(kind), key!.id);
    const { key: third } = await done(scene.orders.prepare({ kind }));
    await done(scene.orders.taint({ id: key!.id, force: true }));
    t.is(await scene.signing(kind), third!.id);
    t.deepEqual(scene.states(kind), ['old', 'tainted', 'active']);
    t.true(scene.isPublic(kind, old));
    await scene.look(t);
  });

  test(`a dry run of each order (${kind}) tells what would happen, and changes nothing`, async (t) => {
    const scene = await Scene.open(t);
    const { orders } = scene;
    const old = await scene.signing(kind);
    const planned = async (order: Promise<OrderResult>, says: RegExp): Promise<void> => {
      const [before, file] = [orders.keys(), readFileSync(scene.path, 'utf8')];
      const result = await done(order);
      t.is(result.kind, 'planned');
      t.regex(result.says.join(), says);
      t.deepEqual([orders.keys(), readFileSync(scene.path, 'utf8')], [before, file]);
    };
    await planned(orders.prepare({ kind, dryRun: true }), /a new key/);
    const { key } = await done(orders.prepare({ kind }));
    scene.clock.advance(3 * MINUTE);
    await planned(orders.activate({ kind, dryRun: true }), new RegExp(`${key?.id} signs from now on`));
    await planned(orders.taint({ id: old, dryRun: true }), /never signs again/);
    await done(orders.taint({ id: old }));
    await planned(orders.revoke({ id: old, dryRun: true }), /out of the bundle/);
    t.is(scene.taints.length, 1);
  });

  test(`a rotation (${kind}) with a restart between any two steps is the same rotation`, async (t) => {
    const scene = await Scene.open(t);
    const same = async (): Promise<void> => {
      const before = [scene.orders.keys(), scene.authority.current().x509Authorities, scene.authority.current().jwtAuthorities.map(({ kid }) => kid)];
      await scene.restart();
      t.deepEqual([scene.orders.keys(), scene.authority.current().x509Authorities, scene.authority.current().jwtAuthorities.map(({ kid }) => kid)], before);
      await scene.look(t);
    };
    const old = await scene.signing(kind);
    await same();
    const { key } = await done(scene.orders.prepare({ kind }));
    await same();
    await scene.live(t, 3 * MINUTE, 30 * SECOND);
    await same();
    await done(scene.orders.activate({ kind }));
    await same();
    t.is(await scene.signing(kind), key!.id);
    await done(scene.orders.taint({ id: old }));
    await same();
    t.deepEqual(scene.states(kind), ['tainted', 'active']);
    await scene.live(t, 50 * SECOND, 10 * SECOND);
    await same();
    // It is away when the moment comes.
    await scene.authority.close();
    scene.clock.advance(MINUTE);
    await scene.start();
    t.false(scene.isPublic(kind, old));
    t.deepEqual(scene.states(kind), ['active']);
    t.is(await scene.signing(kind), key!.id);
    await scene.live(t, 2 * TTL, 2 * HOUR);
  });

  test(`a clock that is set back does not keep a tainted key (${kind}) in the bundle, nor has it sign`, async (t) => {
    const scene = await Scene.open(t);
    const old = await scene.signing(kind);
    await done(scene.orders.prepare({ kind }));
    scene.clock.advance(4 * MINUTE);
    await done(scene.orders.taint({ id: old }));
    scene.clock.step(-2 * HOUR);
    await until(() => (scene.clock.advance(1), !scene.isPublic(kind, old)), 'it has left the bundle');
    t.not(await scene.signing(kind).catch(() => 'none'), old);
  });
}

test('a key is found by the beginning of its ID, in any case where that is hexadecimal, and never by one of several', (t) => {
  const key = (kind: SvidKind, id: string): KeyFact => ({ kind, id, state: 'old', activatesAt: 0, leavesAt: 0, notAfter: 0 });
  const keys = [key('x509', 'abcdef01'), key('x509', 'abcdef02'), key('jwt', 'AbCdEf')];
  t.is(findKey(keys, 'ABCDEF01'), keys[0]!);
  t.like(findKey(keys, 'AbCdE'), { code: 'no_such_key', why: '3 keys begin with "AbCdE"' });
  t.is(findKey(keys.slice(2), 'AbCdE'), keys[2]!);
  t.like(findKey(keys.slice(2), 'abcdef'), { code: 'no_such_key' });
  t.like(findKey(keys, 'abcdef'), { code: 'no_such_key', why: '2 keys begin with "abcdef"' });
  t.like(findKey(keys, 'abcdeg'), { code: 'no_such_key', why: 'there is no key "abcdeg"' });
});

test('the overlap is never longer than a rotation by itself waits', async (t) => {
  const scene = await Scene.open(t, 6 * MINUTE);
  const { key } = await done(scene.orders.prepare({ kind: 'x509' }));
  t.is(key?.usableFrom, (key?.publishedSince ?? 0) + MINUTE);
  scene.clock.advance(MINUTE);
  t.is((await scene.orders.activate({ kind: 'x509' })).kind, 'done');
});

test('orders at the same time, and when a key is made in its own time, make one key', async (t) => {
  const scene = await Scene.open(t);
  const kinds = await Promise.all([1, 2, 3].map(() => scene.orders.prepare({ kind: 'x509' })));
  t.deepEqual(kinds.map(({ kind }) => kind).sort(), ['done', 'refused', 'refused']);
  t.is(scene.keys('x509').length, 2);
  const other = await Scene.open(t);
  // At half of life the next of both kinds are made by themselves, the JWT key last.
  other.clock.advance(12 * HOUR);
  t.is((await other.orders.prepare({ kind: 'x509' })).kind, 'done');
  await until(() => other.keys('jwt').length === 2, 'the JWT key is made');
  await other.live(t, MINUTE, 10 * SECOND);
  t.is(other.keys('x509').length, 2);
});

test('what cannot be written is said; a taint holds nevertheless, an activation waits, and both are written when that is possible', async (t) => {
  const scene = await Scene.open(t);
  const { orders } = scene;
  const obstacle = `${scene.path}.new`;
  const [root, kid] = [await scene.signing('x509'), await scene.signing('jwt')];
  const prepared = await done(orders.prepare({ kind: 'x509' }));
  await done(orders.prepare({ kind: 'jwt' }));
  scene.clock.advance(3 * MINUTE);
  mkdirSync(obstacle);
  await t.throwsAsync(orders.activate({ kind: 'x509' }), { code: 'state_unwritable', message: /a restart would forget what was ordered/ });
  t.is(await scene.signing('x509'), root, 'a restart would have it sign again');
  await t.throwsAsync(orders.taint({ id: kid }), { code: 'state_unwritable' });
  t.not(await scene.signing('jwt'), kid);
  t.true(scene.failures.length >= 2);
  rmSync(obstacle, { recursive: true });
  scene.clock.advance(MINUTE);
  await until(() => scene.keys('x509', 'active')[0]?.id === prepared.key?.id, 'it is written');
  await scene.restart();
  t.is(await scene.signing('x509'), prepared.key!.id);
  t.not(await scene.signing('jwt'), kid);
});

test('an order to an authority that is closed is refused, and what was ordered before is written', async (t) => {
  const scene = await Scene.open(t);
  const order = scene.orders.prepare({ kind: 'jwt' });
  t.is((await order).kind, 'done');
  const { orders } = scene;
  await scene.authority.close();
  await t.throwsAsync(orders.prepare({ kind: 'x509' }), { code: 'stopped' });
  await scene.start();
  t.deepEqual([scene.states('x509'), scene.states('jwt')], [['active'], ['active', 'prepared']]);
});

test('FED-02 to FED-04: whatever is ordered whenever, with restarts, all that is in use verifies at every moment', async (t) => {
  const seed = Number(process.env['SIGNET_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
  t.log(`SIGNET_SEED=${seed}`);
  const random = randomFrom(seed);
  const scene = await Scene.open(t);
  const obeyed: Record<string, number> = {};
  const isEnough = (): boolean => Object.keys(obeyed).length === 4;
  // Which orders are obeyed is a matter of chance too.
  for (let step = 0; step < 150 || (!isEnough() && step < 1_500); step += 1) {
    const kind = KINDS[Math.floor(random() * 2)] ?? 'x509';
    const all = scene.keys(kind);
    const { id: any = '' } = all[Math.floor(random() * all.length)] ?? {};
    const orders: Readonly<Record<string, () => Promise<OrderResult>>> = {
      prepare: () => scene.orders.prepare({ kind }),
      activate: () => scene.orders.activate({ kind }),
      taint: () => scene.orders.taint({ id: any }),
      revoke: () => scene.orders.revoke({ id: all.find(({ state }) => state === 'tainted')?.id ?? any }),
    };
    const [name, order] = Object.entries(orders)[Math.floor(random() * 4)]!;
    if ((await order()).kind === 'done') obeyed[name] = (obeyed[name] ?? 0) + 1;
    await scene.look(t);
    if (random() < 0.1) await scene.restart();
    const ms = [20 * SECOND, 20 * SECOND, 4 * MINUTE, 6 * HOUR][Math.floor(random() * 4)] ?? 0;
    await scene.live(t, ms, ms / 2);
  }
  t.log(obeyed);
  t.true(scene.looks > 500, `${scene.looks} looks`);
  for (const name of ['prepare', 'activate', 'taint', 'revoke']) t.true((obeyed[name] ?? 0) > 0, `${name}: ${obeyed[name]}`);
});

/** Mulberry32: repeats with its seed. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
