import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLocalJWKSet, jwtVerify, type JSONWebKeySet } from 'jose';
import test, { type ExecutionContext } from 'ava';
import type { AuthorityView, OrderAnswer } from '../../../src/admin/messages.ts';
import { run, type Result } from '../../cli/run.ts';
import { caFiles, MountedSecret, testCa } from '../../support/authorities.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { isAccepted } from '../../support/node-authorities.ts';
import { RawClient, type RawStream } from '../../support/raw-client.ts';
import { API, certificatesOf, firstOf, MINUTE, SECOND, SELF, startTimedAgent, TD, whileMoving, type Bundles, type Svids, type TimedAgent } from './timed-agent.ts';

const IDS = ['a', 'b', 'c', 'd'].map((name) => ({ id: `${TD}/${name}`, selectors: SELF, hint: name }));
const CONFIG = { authority: { ttl: '2h' }, x509: { ttl: '30m' }, jwt: { ttl: '10m' }, entries: IDS };

/** The newest message of a stream, as a workload holds it. */
class Holder<T> {
  newest: T | undefined;
  readonly #stream: RawStream<T>;

  constructor(client: RawClient, method: string) {
    this.#stream = client.stream<T>(`${API}${method}`);
    void this.#follow();
  }

  cancel(): void {
    this.#stream.cancel();
  }

  async #follow(): Promise<void> {
    try {
      for (;;) this.newest = await this.#stream.next();
    } catch {
      // It has ended; what was given out is still held.
    }
  }
}

interface Token {
  readonly kid: string;
  readonly text: string;
  readonly end: number;
}

/** Workloads on streams of their own, and an operator, of an agent that may be started again. */
class Scene {
  readonly clock = new FakeClock();
  readonly directory: string;
  readonly #t: ExecutionContext;
  readonly #config: Readonly<Record<string, unknown>>;
  #agent: TimedAgent | undefined;
  #clients: readonly RawClient[] = [];
  #svids: readonly Holder<Svids>[] = [];
  #roots: readonly Holder<Bundles>[] = [];
  #keys: readonly Holder<Bundles>[] = [];
  #tokens: Token[] = [];
  looks = 0;

  constructor(t: ExecutionContext, config: Readonly<Record<string, unknown>>) {
    this.#t = t;
    this.#config = config;
    this.directory = mkdtempSync(join(tmpdir(), 'signet-by-hand-'));
    t.teardown(() => rmSync(this.directory, { recursive: true, force: true }));
  }

  get agent(): TimedAgent {
    if (this.#agent === undefined) throw new Error('it is not started');
    return this.#agent;
  }

  async start(): Promise<void> {
    this.#agent = await startTimedAgent(this.#t, { clock: this.clock, directory: this.directory, config: this.#config });
    this.#clients = Array.from({ length: 5 }, () => new RawClient(this.agent.agent.socketPath));
    this.#svids = this.#clients.map((client) => new Holder<Svids>(client, 'FetchX509SVID'));
    this.#roots = this.#clients.slice(0, 2).map((client) => new Holder<Bundles>(client, 'FetchX509Bundles'));
    this.#keys = this.#clients.slice(0, 2).map((client) => new Holder<Bundles>(client, 'FetchJWTBundles'));
    const held = [...this.#svids, ...this.#roots, ...this.#keys];
    await this.until(() => held.every(({ newest }) => newest !== undefined), 'every stream has begun');
  }

  async restart(): Promise<void> {
    this.close();
    await this.agent.stop();
    await this.start();
  }

  /** The workloads go. */
  close(): void {
    for (const holder of [...this.#svids, ...this.#roots, ...this.#keys]) holder.cancel();
    for (const client of this.#clients) client.close();
  }

  async until(condition: () => boolean, what: string): Promise<void> {
    for (let turn = 0; turn < 2_000; turn += 1) {
      if (condition()) return;
      await whileMoving(this.clock, () => new Promise((resolve) => setTimeout(resolve, 2)), 1);
    }
    throw new Error(`it did not happen: ${what}`);
  }

  /** As the operator types it. */
  signet(words: string): Promise<Result> {
    const env = { SIGNET_ADMIN_SOCKET: this.agent.agent.config.admin.socketPath };
    return run(['authority', ...words.split(' ')], { env });
  }

  async order(words: string): Promise<OrderAnswer> {
    const { code, stdout, stderr } = await this.signet(words.replace(/^\S+/, '$& --output json'));
    if (code !== 0) throw new Error(stderr);
    return JSON.parse(stdout) as OrderAnswer;
  }

  async keys(kind: string): Promise<AuthorityView['keys']> {
    const view = JSON.parse((await this.signet('show --output json')).stdout) as AuthorityView;
    return view.keys.filter((key) => key.kind === kind);
  }

  /** Chains of all SVIDs that workloads hold. */
  get chains(): readonly (readonly Buffer[])[] {
    return this.#svids.flatMap(({ newest }) => newest?.svids.map(({ x509_svid }) => certificatesOf(x509_svid).map(({ raw }) => raw)) ?? []);
  }

  /** Roots as each workload holds them: with its SVIDs, or by a stream of bundles. */
  get roots(): readonly (readonly Buffer[])[] {
    const withSvids = this.#svids.map(({ newest }) => newest?.svids[0]?.bundle);
    const alone = this.#roots.map(({ newest }) => newest?.bundles[TD]);
    return [...withSvids, ...alone].map((bytes) => certificatesOf(bytes ?? Buffer.of()).map(({ raw }) => raw));
  }

  get keySets(): readonly JSONWebKeySet[] {
    return this.#keys.map(({ newest }) => JSON.parse(newest?.bundles[TD]?.toString() ?? '{}') as JSONWebKeySet);
  }

  async token(): Promise<Token> {
    const { svids } = await this.agent.client.unary<Svids>(`${API}FetchJWTSVID`, { audience: ['x'], spiffe_id: `${TD}/a` });
    const text = svids[0]?.svid ?? '';
    const [header = {}, claims = {}] = text.split('.').slice(0, 2).map((part) => JSON.parse(Buffer.from(part, 'base64url').toString()) as Record<string, unknown>);
    const token = { kid: String(header['kid']), text, end: Number(claims['exp']) * 1_000 };
    this.#tokens.push(token);
    return token;
  }

  /** Workloads ask again for tokens that this key has signed. */
  forget(kid: string): void {
    this.#tokens = this.#tokens.filter((token) => token.kid !== kid);
  }

  /** Fails when a workload would refuse an SVID that another one holds at this moment. */
  async look(when: string): Promise<void> {
    await this.token();
    const now = this.clock.now();
    this.#tokens = this.#tokens.filter(({ end }) => end > now);
    for (const roots of this.roots) {
      for (const chain of this.chains) if (!isAccepted(chain, roots, now)) this.#t.fail(`${when}: an X.509-SVID is refused`);
      this.looks += this.chains.length;
    }
    for (const keys of this.keySets) {
      for (const { text } of this.#tokens) await jwtVerify(text, createLocalJWKSet(keys), { currentDate: new Date(now) });
    }
  }

  async live(ms: number, stepMs: number, when: string): Promise<void> {
    for (let passed = 0; passed < ms; passed += stepMs) {
      this.clock.advance(stepMs);
      for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
      await this.look(when);
    }
  }
}

async function setUp(t: ExecutionContext, config: Readonly<Record<string, unknown>> = CONFIG): Promise<Scene> {
  const scene = new Scene(t, config);
  await scene.start();
  t.teardown(() => scene.close());
  return scene;
}

const ID = (answer: OrderAnswer): string => answer.key?.id ?? '';

for (const restarts of [false, true]) {
  test(`FED-02 to FED-04: the root is prepared, activated, and the old one tainted${restarts ? ', with a restart between any two steps' : ''}, and no workload refuses another at any moment`, async (t) => {
    const scene = await setUp(t);
    const step = async (): Promise<void> => {
      if (restarts) await scene.restart();
      await scene.look('between two steps');
    };
    const [first] = await scene.keys('x509');
    const isUnder = (chain: readonly Buffer[], id: string): boolean => chain[0]?.includes(Buffer.from(id, 'hex')) === true;
    const prepared = await scene.order('prepare x509');
    const next = ID(prepared);
    await scene.until(() => scene.roots.every((roots) => roots.length === 2), 'every workload has both roots');
    t.true(scene.chains.every((chain) => isUnder(chain, first!.id)));
    await step();
    const early = await scene.signet('activate x509');
    t.is(early.code, 1);
    t.regex(early.stderr, /there may be verifiers that do not have it\n {2}try again then, or add --force/);
    await scene.live(3 * MINUTE, 30 * SECOND, 'while it is prepared');
    await step();
    await scene.order('activate x509');
    await step();
    await scene.live(4 * MINUTE, 30 * SECOND, 'after it was activated');
    t.true(scene.roots.every((roots) => roots.length === 2), 'the old root stays');
    const renewed = scene.chains.filter((chain) => isUnder(chain, next)).length;
    if (!restarts) t.is(renewed, 0, 'what the old one has signed is replaced when it is renewed');
    const tainted = await scene.order(`taint ${first!.id.slice(0, 12)}`);
    t.deepEqual([ID(tainted), tainted.key?.state], [first!.id, 'tainted']);
    await scene.live(6 * SECOND, SECOND, 'while SVIDs are replaced');
    await scene.until(() => scene.chains.every((chain) => isUnder(chain, next)), 'every stream has new SVIDs');
    t.is(scene.chains.length, 20);
    await step();
    t.true(scene.roots.every((roots) => roots.length === 2), 'it is in the bundle a while longer');
    await scene.live(MINUTE, 5 * SECOND, 'until it leaves the bundle');
    await scene.until(() => scene.roots.every((roots) => roots.length === 1), 'no workload believes it any more');
    await step();
    await scene.live(20 * MINUTE, 2 * MINUTE, 'afterwards');
    t.deepEqual((await scene.keys('x509')).map(({ id, state }) => [id, state]), [[next, 'active']]);
    t.true(scene.looks > 1_000, `${scene.looks} looks`);
  });

  test(`FED-02 to FED-04: the JWT key is prepared, activated, and the old one tainted${restarts ? ', with a restart between any two steps' : ''}, and every token verifies`, async (t) => {
    const scene = await setUp(t);
    const step = async (): Promise<void> => {
      if (restarts) await scene.restart();
      await scene.look('between two steps');
    };
    const { kid: old } = await scene.token();
    const next = ID(await scene.order('prepare jwt'));
    await scene.until(() => scene.keySets.every(({ keys }) => keys.length === 2), 'every workload has both keys');
    t.is((await scene.token()).kid, old);
    await step();
    t.is((await scene.signet('activate jwt')).code, 1);
    await scene.live(3 * MINUTE, 30 * SECOND, 'while it is prepared');
    await step();
    await scene.order('activate jwt');
    await step();
    t.is((await scene.token()).kid, restarts ? next : old, 'a token that is cached is as good as before');
    await scene.order(`taint -- ${old}`);
    scene.forget(old);
    t.is((await scene.token()).kid, next, 'from now on none is given out that the old key has signed');
    await step();
    t.true(scene.keySets.every(({ keys }) => keys.length === 2));
    await scene.live(65 * SECOND, 5 * SECOND, 'until it leaves the bundle');
    await scene.until(() => scene.keySets.every(({ keys }) => keys.length === 1), 'no workload believes it any more');
    await step();
    await scene.live(20 * MINUTE, 2 * MINUTE, 'afterwards');
    t.deepEqual((await scene.keys('jwt')).map(({ id, state }) => [id, state]), [[next, 'active']]);
  });
}

test('who comes back after the root was tainted gets no SVID under it, although it was kept for him', async (t) => {
  const scene = await setUp(t, { ...CONFIG, entries: [...IDS, { id: `${TD}/self`, selectors: SELF }] });
  const { id } = (await scene.keys('x509'))[0]!;
  await scene.order('prepare x509');
  await scene.live(3 * MINUTE, MINUTE, 'while it is prepared');
  scene.close();
  await scene.until(() => scene.agent.agent.agent.taken.calls === 0, 'nobody reads');
  await scene.order(`taint ${id}`);
  const client = new RawClient(scene.agent.agent.socketPath);
  t.teardown(() => client.close());
  const { svids } = await whileMoving(scene.clock, () => firstOf<Svids>(client, 'FetchX509SVID'));
  t.is(svids.length, 5);
  for (const { x509_svid } of svids) t.false(x509_svid.includes(Buffer.from(id, 'hex')));
});

test('orders are in the log with who has given them, and what is refused too', async (t) => {
  const scene = await setUp(t);
  const { id } = (await scene.keys('x509'))[0]!;
  const prepared = await scene.order('prepare x509');
  t.is((await scene.signet(`revoke ${id}`)).code, 1);
  await scene.order('prepare jwt --dry-run');
  const me = { uid: process.geteuid?.(), pid: process.pid };
  t.like(scene.agent.agent.lines.filter(({ event }) => event.startsWith('authority.')), {
    0: { event: 'authority.prepare', level: 'info', reason: 'done', serial: ID(prepared), ...me },
    1: { event: 'authority.revoke', level: 'warn', reason: 'refused', serial: id, ...me },
    length: 2,
  });
});

test('under a CA in files a tainted node CA is replaced at once, with every SVID that it has signed', async (t) => {
  const now = new FakeClock().now();
  const ca = await testCa({ name: 'O=Test, CN=operator', from: now - MINUTE, to: now + 10_000 * MINUTE });
  const directory = mkdtempSync(join(tmpdir(), 'signet-by-hand-ca-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const secret = new MountedSecret(join(directory, 'ca'), caFiles(ca));
  const files = { certificate: secret.path('tls.crt'), key: secret.path('tls.key'), roots: [secret.path('ca.crt')] };
  const scene = await setUp(t, { ...CONFIG, authority: { type: 'files', ttl: '2h', files } });
  const { id } = (await scene.keys('x509'))[0]!;
  const refused = await scene.signet('prepare x509');
  t.is(refused.code, 1);
  t.regex(refused.stderr, /the root is not the agent's own.*\n.*authority\.files\.roots/);
  t.regex((await scene.signet('show')).stdout, /Roots above\n.*\n.*operator/);
  t.true(scene.chains.every(([leaf]) => leaf?.includes(Buffer.from(id, 'hex'))));
  await scene.order(`taint ${id}`);
  await scene.live(6 * SECOND, SECOND, 'while SVIDs are replaced');
  await scene.until(() => scene.chains.every(([leaf]) => leaf?.includes(Buffer.from(id, 'hex')) === false), 'every stream has new SVIDs');
  await scene.restart();
  t.true(scene.chains.every((chain) => !chain.some((der) => der.includes(Buffer.from(id, 'hex')))));
  await scene.live(20 * MINUTE, 2 * MINUTE, 'afterwards');
});
