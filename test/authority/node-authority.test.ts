import { chmodSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { NodeAuthority } from '../../src/authority/node-authority.ts';
import { SignetError } from '../../src/errors.ts';
import { parseTrustDomain } from '../../src/spiffe/id.ts';
import { testCa } from '../support/authorities.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { temporaryDirectory, until } from '../support/kernel-processes.ts';
import { isAccepted, openNodeAuthority, ScriptedSource, trustDomain, twoTiers, type Opened, type OpenOptions } from '../support/node-authorities.ts';
import { evenRandom, settle } from '../support/signers.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const FILE = 'node-authority.json';
const AWAY = new SignetError('authority_unavailable', 'the CA is away');
/** Repeats its jitter only: serial numbers must differ. */
const even = { ...evenRandom, bytes: (count: number) => Buffer.from(crypto.getRandomValues(new Uint8Array(count))) };

interface SetUp extends Opened {
  readonly clock: FakeClock;
  readonly source: ScriptedSource;
  readonly directory: string;
  reopen(more?: Partial<OpenOptions>): Promise<Opened>;
}

async function setUp(t: ExecutionContext, more: Partial<OpenOptions> = {}): Promise<SetUp> {
  const clock = new FakeClock();
  const { root, ca } = await twoTiers('First');
  const source = new ScriptedSource(clock, ca, [root]);
  const directory = temporaryDirectory(t);
  const reopen = (changed: Partial<OpenOptions> = {}): Promise<Opened> => openNodeAuthority(t, clock, source, { privateDir: directory, random: even, ...more, ...changed });
  return { ...(await reopen()), clock, source, directory, reopen };
}

/** What `get` returns, or undefined while nothing signs. */
function attempt<T>(get: () => T): T | undefined {
  try {
    return get();
  } catch {
    return undefined;
  }
}

const stateOf = (directory: string): { nodeCas: { chain: string[] }[]; roots: unknown[] } => JSON.parse(readFileSync(join(directory, FILE), 'utf8'));

test('the first node CA signs at once, under roots that are public before', async (t) => {
  const { authority, steps, source, directory, leaf, clock } = await setUp(t);
  t.deepEqual(steps, ['jwt prepared', 'jwt activated', 'x509 prepared', 'x509 activated']);
  t.deepEqual(authority.current().x509Authorities, [source.root.certificate]);
  t.deepEqual(authority.current().jwtAuthorities.map(({ kid }) => kid), [authority.jwtKey().kid]);
  const { chain } = await leaf();
  t.is(chain.length, 3);
  t.deepEqual(chain[2], source.ca.certificate);
  t.true(isAccepted(chain, authority.current().x509Authorities, clock.now()));
  t.is(statSync(join(directory, FILE)).mode & 0o777, 0o600);
  t.deepEqual(authority.status(), { lastSuccess: clock.now(), nodeCaNotAfter: clock.now() + DAY });
});

test('under a root itself the chain is the leaf and the node CA', async (t) => {
  const clock = new FakeClock();
  const source = new ScriptedSource(clock, await testCa());
  const { leaf, authority } = await openNodeAuthority(t, clock, source, { privateDir: temporaryDirectory(t) });
  const { chain } = await leaf();
  t.is(chain.length, 2);
  t.true(isAccepted(chain, authority.current().x509Authorities, clock.now()));
});

test('it is renewed at half of its life, signs at once, and the key before it is forgotten', async (t) => {
  const { authority, steps, source, directory, clock } = await setUp(t);
  const first = authority.issuer().certificate;
  const changes: boolean[] = [];
  authority.onIssuerChange(({ isReplaced }) => void changes.push(isReplaced));
  clock.advance(12 * HOUR - 1_000);
  await settle();
  t.is(source.count, 1);
  clock.advance(2_000);
  await until(() => steps.includes('x509 retired'), 'the first one is retired');
  t.notDeepEqual(authority.issuer().certificate, first);
  t.deepEqual(changes, [false], 'it stands under the same CA');
  await until(() => stateOf(directory).nodeCas.length === 1, 'the key is forgotten');
  t.is(source.count, 2);
});

test('the moment of renewal is spread over a fifth of life', async (t) => {
  for (const [fraction, hours] of [[0, 9.6], [0.999_999, 14.4]] as const) {
    const { clock, source } = await setUp(t, { random: { ...even, fraction: () => fraction } });
    clock.advance(hours * HOUR - MINUTE);
    await settle();
    t.is(source.count, 1);
    clock.advance(2 * MINUTE);
    await until(() => (clock.advance(1), source.count === 2), `renewed after ${hours} hours`);
  }
});

test('while the CA is away the node CA signs to its end, and asking backs off', async (t) => {
  const { authority, source, clock, failures, leaf } = await setUp(t);
  const end = clock.now() + DAY;
  const first = authority.issuer().certificate;
  source.failure = AWAY;
  clock.advance(12 * HOUR);
  for (let attempt = 1; attempt <= 9; attempt += 1) {
    await until(() => failures.length === attempt, `attempt ${attempt}`);
    await settle();
    clock.advance(failures.at(-1)?.retryMs ?? 0);
  }
  t.deepEqual(failures.slice(0, 8).map(({ retryMs }) => retryMs), [1, 2, 4, 8, 16, 32, 60, 60].map((seconds) => seconds * 750));
  t.deepEqual(authority.status(), { lastSuccess: end - DAY, nodeCaNotAfter: end, failing: 'the CA is away' });
  clock.step(end - 30_000 - clock.now());
  const { notAfter } = await leaf();
  t.is(notAfter, end, 'a leaf never outlives it');
  t.deepEqual(authority.issuer().certificate, first);
  clock.step(30_000);
  t.throws(() => authority.issuer(), { code: 'authority_unavailable', message: 'there is no node CA that is valid now: the CA is away' });
  await t.throwsAsync(leaf(), { code: 'authority_unavailable' });
  t.is(authority.status().nodeCaNotAfter, undefined);
  source.failure = undefined;
  source.changed();
  await until(() => authority.status().nodeCaNotAfter !== undefined, 'it signs again at once');
  await until(() => authority.status().failing === undefined, 'nothing fails any more');
  t.true(isAccepted((await leaf()).chain, authority.current().x509Authorities, clock.now()));
});

test('a restart during the outage goes on with the same keys and asks for nothing', async (t) => {
  const { authority, source, reopen, clock, directory } = await setUp(t);
  const [ca, kid] = [authority.issuer().certificate, authority.jwtKey().kid];
  await authority.close();
  source.failure = AWAY;
  source.roots = () => [];
  clock.advance(HOUR);
  t.true(NodeAuthority.check({ trustDomain, privateDir: directory, ttlMs: DAY, nameConstraint: 'none' }, clock.now()));
  const again = await reopen();
  t.deepEqual(again.authority.issuer().certificate, ca);
  t.is(again.authority.jwtKey().kid, kid);
  t.true(isAccepted((await again.leaf()).chain, again.authority.current().x509Authorities, clock.now()));
  t.is(source.count, 1);
  t.deepEqual(again.failures, []);
  t.is(again.authority.status().lastSuccess, undefined);
});

test('without any state it opens while the CA is away, and signs as soon as that is back', async (t) => {
  const clock = new FakeClock();
  const source = new ScriptedSource(clock, await testCa());
  source.failure = AWAY;
  const directory = temporaryDirectory(t);
  t.false(NodeAuthority.check({ trustDomain, privateDir: directory, ttlMs: DAY, nameConstraint: 'none' }, clock.now()));
  const { authority, failures } = await openNodeAuthority(t, clock, source, { privateDir: directory });
  t.throws(() => authority.issuer(), { code: 'authority_unavailable' });
  t.notThrows(() => authority.jwtKey());
  source.failure = undefined;
  clock.advance(failures[0]?.retryMs ?? 0);
  await authority.ready();
  t.notThrows(() => authority.issuer());
});

test('what only an operator can help with keeps it from opening when there is nothing to sign with', async (t) => {
  const { authority, source, reopen, directory } = await setUp(t);
  await authority.close();
  source.failure = new SignetError('state_refused', 'the key is encrypted. What to do: decrypt it.');
  await t.notThrowsAsync(reopen(), 'with a good state it goes on');
  rmSync(join(directory, FILE));
  await t.throwsAsync(reopen(), { code: 'state_refused', message: 'the key is encrypted. What to do: decrypt it.' });
});

test('an upstream that does not answer within 30 s is taken to be away', async (t) => {
  const { authority, source, clock, failures } = await setUp(t);
  source.gate = new Promise(() => undefined);
  clock.advance(12 * HOUR);
  await until(() => source.count === 2, 'it is asked');
  clock.advance(30_000);
  await until(() => failures.length === 1, 'it is given up');
  t.is(failures[0]?.error, 'the upstream has not answered within 30 s');
  t.notThrows(() => authority.issuer());
});

test('a wrong answer is not used: the one before goes on', async (t) => {
  const { authority, source, clock, failures } = await setUp(t);
  const first = authority.issuer().certificate;
  const other = await testCa({ parent: source.ca, pathLength: 0, uris: ['spiffe://example.org'], to: clock.now() + 30 * HOUR });
  source.tamper = ({ chain, roots }) => ({ chain: [other.certificate, ...chain.slice(1)], roots });
  clock.advance(12 * HOUR);
  await until(() => failures.length === 1, 'it is refused');
  t.is(failures[0]?.error, 'the node CA that the upstream has answered is refused: it holds another public key');
  t.deepEqual(authority.issuer().certificate, first);
  source.tamper = (answer) => answer;
  clock.advance(failures[0]?.retryMs ?? 0);
  await until(() => !authority.issuer().certificate.equals(first), 'a good one is used');
});

test('an answer by another CA than the one that is named is not used', async (t) => {
  const { source, clock, failures, authority } = await setUp(t);
  const named = await testCa({ parent: source.root });
  source.issuer = () => named.certificate;
  clock.advance(12 * HOUR);
  await until(() => failures.length === 1, 'it is refused');
  t.regex(failures[0]?.error ?? '', /it is not signed by the CA that the upstream has named$/);
  t.notThrows(() => authority.issuer());
});

test('a change of the name constraint is taken at the next start', async (t) => {
  const { authority, reopen, source, leaf, clock } = await setUp(t);
  const before = (await leaf()).chain[1];
  await authority.close();
  const again = await reopen({ nameConstraint: 'uri' });
  t.notDeepEqual(again.authority.issuer().certificate, before);
  t.is(source.count, 2);
  t.true(isAccepted((await again.leaf()).chain, again.authority.current().x509Authorities, clock.now()));
  await again.authority.close();
  await reopen({ nameConstraint: 'uri' });
  t.is(source.count, 2, 'and only once');
});

test('when the clock goes far forward a new one is made at once; when it goes back before its beginning too', async (t) => {
  const { authority, clock, steps, leaf } = await setUp(t);
  for (const delta of [3 * DAY, -2 * DAY]) {
    const before = authority.status().nodeCaNotAfter;
    steps.length = 0;
    clock.step(delta);
    await until(() => steps.includes('x509 activated') && authority.status().nodeCaNotAfter !== before, 'another one signs');
    await until(() => authority.status().nodeCaNotAfter !== undefined, 'it signs');
    t.true(isAccepted((await leaf()).chain, authority.current().x509Authorities, clock.now()));
  }
});

test('near the end of the CA above, node CAs are shortened and renewed no faster than every 10 s', async (t) => {
  const clock = new FakeClock();
  const end = clock.now() + 10 * MINUTE;
  const root = await testCa({ to: end });
  const source = new ScriptedSource(clock, root);
  const { authority } = await openNodeAuthority(t, clock, source, { privateDir: temporaryDirectory(t), random: even });
  for (let left = 600; left > 0; left -= 5) {
    clock.advance(5_000);
    await settle();
    t.true((authority.status().nodeCaNotAfter ?? end) <= end);
  }
  await until(() => (clock.advance(1), authority.status().failing !== undefined), 'its end is told');
  t.true(source.count < 40, `asked ${source.count} times`);
});

test('JWT keys are made, published, used and dropped as those of the embedded authority', async (t) => {
  const { authority, clock, steps } = await setUp(t);
  const first = authority.jwtKey().kid;
  const kids = (): string[] => authority.current().jwtAuthorities.map(({ kid }) => kid);
  clock.advance(12 * HOUR);
  await until(() => kids().length === 2, 'the next one is public');
  t.is(authority.jwtKey().kid, first, 'and signs later');
  clock.advance(4 * HOUR);
  await until(() => authority.jwtKey().kid !== first, 'it signs');
  t.true(kids().includes(first));
  clock.advance(8 * HOUR);
  await until(() => (clock.advance(1), !kids().includes(first)), 'the first one is gone');
  t.true(steps.includes('jwt retired'));
});

test('FED-03: whenever the bundle changes, what signs at that moment is in it', async (t) => {
  const { clock, authority } = await setUp(t);
  let told = 0;
  authority.onChange((bundle) => {
    told += 1;
    const [kid, chain] = [attempt(() => authority.jwtKey().kid), attempt(() => authority.intermediates())];
    t.true(kid === undefined || bundle.jwtAuthorities.some((key) => key.kid === kid));
    t.true(chain === undefined || isAccepted(chain, bundle.x509Authorities, clock.now()));
  });
  for (const delta of [2 * DAY, -DAY, 30 * DAY]) {
    const before = told;
    clock.step(delta);
    await until(() => (clock.advance(1), told > before), 'the bundle has changed');
  }
});

test('first keys that cannot be kept keep it from opening; later ones do not sign while others can', async (t) => {
  const { authority, directory, clock, failures, reopen, source } = await setUp(t);
  const first = authority.issuer().certificate;
  mkdirSync(join(directory, `${FILE}.new`));
  clock.advance(12 * HOUR);
  await until(() => failures.length === 1, 'it cannot be written');
  t.regex(failures[0]?.error ?? '', /node-authority\.json cannot be written/);
  t.deepEqual(authority.issuer().certificate, first, 'the one that a restart would find goes on');
  rmSync(join(directory, `${FILE}.new`), { recursive: true });
  clock.advance(failures[0]?.retryMs ?? 0);
  await until(() => !authority.issuer().certificate.equals(first), 'the new one signs');
  t.is(source.count, 2, 'it was kept in memory meanwhile');
  await authority.close();
  rmSync(join(directory, FILE));
  mkdirSync(join(directory, `${FILE}.new`));
  await t.throwsAsync(reopen(), { code: 'state_unwritable', message: /^the first keys cannot be kept: .* What to do: make .* writable/ });
});

test('closed while the CA is asked, it writes nothing and waits for nothing', async (t) => {
  const { authority, source, clock, directory, failures } = await setUp(t);
  const before = readFileSync(join(directory, FILE), 'utf8');
  source.gate = new Promise(() => undefined);
  clock.advance(12 * HOUR);
  await until(() => source.count === 2, 'it is asked');
  const kept = stateOf(directory);
  await authority.close();
  t.deepEqual(stateOf(directory), kept);
  t.is(JSON.parse(before).trustDomain, 'example.org');
  t.is(clock.pending, 0);
  t.deepEqual(failures, []);
});

test('a state that is damaged or foreign is refused, with what to do, and stays as it is', async (t) => {
  const { authority, directory, reopen, source, clock } = await setUp(t);
  await authority.close();
  const path = join(directory, FILE);
  const good = readFileSync(path, 'utf8');
  const state = JSON.parse(good);
  const other = await setUp(t);
  const foreign = JSON.parse(readFileSync(join(other.directory, FILE), 'utf8'));
  const [ca] = state.nodeCas;
  const [otherCa] = foreign.nodeCas;
  const cases: readonly (readonly [string, RegExp])[] = [
    [good.slice(0, 500), /damaged or foreign: .*JSON/],
    ['{}', /damaged or foreign: /],
    [JSON.stringify({ ...state, version: 2 }), /damaged or foreign: /],
    [JSON.stringify({ ...state, nodeCas: [{ ...ca, privateKey: otherCa.privateKey }] }), /it holds another public key/],
    [JSON.stringify({ ...state, nodeCas: [{ ...ca, chain: [...ca.chain].reverse() }] }), /not/],
    [JSON.stringify({ ...state, nodeCas: [{ ...ca, chain: [] }] }), /there is no certificate/],
    [JSON.stringify({ ...state, nodeCas: [{ ...ca, root: otherCa.root }] }), /a node CA stands under a root that is not among its roots/],
    [JSON.stringify({ ...state, roots: [...state.roots, ...foreign.roots], nodeCas: [{ ...ca, root: otherCa.root }] }), /is not signed by "CN=First root"/],
  ];
  for (const [text, reason] of cases) {
    writeFileSync(path, text);
    const error = await t.throwsAsync(reopen(), { code: 'state_refused', message: reason });
    t.true(error?.message.endsWith('What to do: move it away; the agent then asks for a new node CA, and JWT-SVIDs that this node has signed stop being valid.'));
    t.throws(() => NodeAuthority.check({ trustDomain, privateDir: directory, ttlMs: DAY, nameConstraint: 'none' }, clock.now()), { code: 'state_refused' });
    t.is(readFileSync(path, 'utf8'), text);
  }
  writeFileSync(path, good);
  const elsewhere = { trustDomain: parseTrustDomain('other.test') };
  await t.throwsAsync(reopen(elsewhere), { code: 'state_refused', message: /it belongs to the trust domain "example\.org", and this agent serves "other\.test"/ });
  chmodSync(path, 0o644);
  await t.throwsAsync(reopen(), { code: 'state_refused', message: /others may read or write it/ });
  t.is(source.count, 1, 'nothing was asked for');
});
