import { spawnSync } from 'node:child_process';
import { generateKeyPairSync, X509Certificate } from 'node:crypto';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, renameSync, writeFileSync, chownSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLocalJWKSet, jwtVerify, type JSONWebKeySet } from 'jose';
import test, { type ExecutionContext } from 'ava';
import { EmbeddedAuthority } from '../../src/authority/embedded.ts';
import { SystemClock, type Clock } from '../../src/clock.ts';
import { EventBus } from '../../src/events.ts';
import { systemRandom } from '../../src/random.ts';
import { parseTrustDomain } from '../../src/spiffe/id.ts';
import { startTestAgent, type TestAgent } from '../support/agent.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { needsRoot, testIf } from '../support/kernel-conditions.ts';
import { until } from '../support/kernel-processes.ts';
import { RawClient, type Svid } from '../support/raw-client.ts';

const API = '/SpiffeWorkloadAPI/';
const TD = 'spiffe://example.org';
const MINUTE = 60_000;
const STATE = 'embedded-authority.json';

interface Svids {
  readonly svids: readonly Svid[];
}

function directory(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), 'signet-authority-'));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

async function stopOn(clock: FakeClock, agent: TestAgent): Promise<void> {
  const turn = setInterval(() => clock.advance(100), 5);
  await agent.stop();
  clearInterval(turn);
}

test('FED-02, FED-03, FED-04: at every moment each living SVID and token verifies with the bundle that clients hold', async (t) => {
  const clock = new FakeClock();
  const agent = await startTestAgent({ clock, config: { authority: { ttl: '60m' }, x509: { ttl: '20m' }, jwt: { ttl: '10m' } } });
  const client = new RawClient(agent.socketPath);
  t.teardown(async () => {
    client.close();
    await stopOn(clock, agent);
  });
  const roots = new Set<string>();
  const kids = new Set<string>();
  const alive: { leaf: X509Certificate; token: string }[] = [];
  for (let minute = 0; minute < 200; minute += 4) {
    const svid = (await first<Svids>(client, 'FetchX509SVID')).svids[0]!;
    const { svids } = await client.unary<Svids>(`${API}FetchJWTSVID`, { audience: ['x'] });
    alive.push({ leaf: new X509Certificate(svid.x509_svid), token: svids[0]!.svid });
    const jwks = JSON.parse((await first<{ bundles: Record<string, Buffer> }>(client, 'FetchJWTBundles')).bundles[TD]!.toString()) as JSONWebKeySet;
    const held = certificatesOf(svid.bundle);
    for (const root of held) roots.add(root.serialNumber);
    for (const key of jwks.keys) kids.add(key.kid!);
    for (const { leaf, token } of alive) {
      if (leaf.validToDate.getTime() > clock.now()) t.true(held.some((root) => leaf.verify(root.publicKey)), `X.509 at minute ${minute}`);
      const { exp } = JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString()) as { exp: number };
      if (exp * 1000 > clock.now()) await jwtVerify(token, createLocalJWKSet(jwks), { currentDate: new Date(clock.now()) });
      t.true(leaf.validToDate.getTime() - leaf.validFromDate.getTime() <= 21 * MINUTE + 1000);
    }
    clock.advance(4 * MINUTE);
    // What became due happens in the turns of the event loop that follow.
    for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  }
  t.true(roots.size >= 4 && kids.size >= 4, `${roots.size} roots and ${kids.size} keys followed one another`);
});

test('a restart keeps the trust bundle', async (t) => {
  const dir = directory(t);
  const bundles: string[] = [];
  for (let start = 0; start < 2; start += 1) {
    const agent = await startTestAgent({ directory: dir });
    const client = new RawClient(agent.socketPath);
    const x509 = await first<{ bundles: Record<string, Buffer> }>(client, 'FetchX509Bundles');
    const jwt = await first<{ bundles: Record<string, Buffer> }>(client, 'FetchJWTBundles');
    bundles.push(x509.bundles[TD]!.toString('hex') + jwt.bundles[TD]!.toString());
    client.close();
    await agent.stop();
  }
  t.is(bundles[0], bundles[1]);
});

test('keys are kept in a directory 0700 and a file 0600, and nothing is left aside', async (t) => {
  const dir = directory(t);
  const agent = await startTestAgent({ directory: dir });
  t.teardown(agent.stop);
  t.is(statSync(join(dir, 'data')).mode & 0o777, 0o700);
  t.deepEqual(readdirSync(join(dir, 'data')), [STATE]);
  t.is(statSync(join(dir, 'data', STATE)).mode & 0o777, 0o600);
});

const OTHER_KEY = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'pem', type: 'pkcs8' }).toString();

type Spoil = (path: string) => void;
const edit = (change: (state: Record<string, unknown> & { x509: { certificate: string; privateKey: string }[] }) => void): Spoil => (path) => {
  const state = JSON.parse(readFileSync(path, 'utf8')) as Parameters<typeof change>[0];
  change(state);
  writeFileSync(path, JSON.stringify(state));
};

const SPOILT: readonly (readonly [what: string, spoil: Spoil, message: RegExp])[] = [
  ['that was cut off', (path) => writeFileSync(path, readFileSync(path, 'utf8').slice(0, 300)), /damaged or foreign.*move it away/],
  ['that is empty', (path) => writeFileSync(path, ''), /damaged or foreign/],
  ['of another trust domain', edit((state) => (state['trustDomain'] = 'other.test')), /belongs to the trust domain "other.test"/],
  ['of a later version', edit((state) => (state['version'] = 2)), /damaged or foreign/],
  ['with the key of another certificate', edit((state) => (state.x509[0]!.privateKey = OTHER_KEY)), /do not belong together/],
  ['whose certificate is broken', edit((state) => (state.x509[0]!.certificate = 'x')), /damaged or foreign/],
  ['that others may read', (path) => chmodSync(path, 0o644), /others may read.*chmod 600/],
  ['that is a link', (path) => {
    renameSync(path, `${path}.real`);
    symlinkSync(`${path}.real`, path);
  }, /cannot be read/],
];

for (const [what, spoil, message] of SPOILT) {
  test(`a state file ${what} is refused, says what to do, and is left as it was`, async (t) => {
    const dir = directory(t);
    const agent = await startTestAgent({ directory: dir });
    await agent.stop();
    const path = join(dir, 'data', STATE);
    spoil(path);
    const before = readFileSync(path, 'utf8');
    await t.throwsAsync(startTestAgent({ directory: dir }), { code: 'state_refused', message });
    t.is(readFileSync(path, 'utf8'), before);
    t.false(readdirSync(join(dir, 'run')).includes('api.sock'), 'an agent that cannot start takes no socket');
  });
}

testIf(needsRoot, 'a state file of another user is refused', async (t) => {
  const dir = directory(t);
  await (await startTestAgent({ directory: dir })).stop();
  chownSync(join(dir, 'data', STATE), 65_534, 65_534);
  await t.throwsAsync(startTestAgent({ directory: dir }), { code: 'state_refused', message: /belongs to uid 65534/ });
});

test('a data directory that others may write to is refused', async (t) => {
  const dir = directory(t);
  mkdirSync(join(dir, 'data'));
  chmodSync(join(dir, 'data'), 0o777);
  await t.throwsAsync(startTestAgent({ directory: dir }), { code: 'state_refused', message: /may be written by others.*chmod 700/ });
});

const canMount = spawnSync('unshare', ['--mount', 'true']).status === 0 && process.getuid?.() === 0;

testIf([canMount, 'needs root and mount'], 'a data directory that is full or read-only: an agent with keys starts and goes on, one without says what to do', async (t) => {
  const dir = directory(t);
  const data = join(dir, 'data');
  mkdirSync(data);
  mount(t, data, 'size=64k,mode=0700');
  const options = { trustDomain: parseTrustDomain('example.org'), dataDir: data, ttlMs: 60 * MINUTE };
  const clock = new FakeClock();
  const events = new EventBus();
  const failures: string[] = [];
  events.on('authorityFailed', ({ error }) => void failures.push(error));
  const open = (withClock: Clock): Promise<EmbeddedAuthority> => EmbeddedAuthority.open(options, { clock: withClock, random: systemRandom, events });

  remount(data, 'ro');
  await t.throwsAsync(open(new SystemClock()), { code: 'state_unwritable', message: /make .* writable/ });
  remount(data, 'rw');
  failures.length = 0;
  const authority = await open(clock);
  t.teardown(() => authority.close());
  const before = authority.issuer().certificate;
  for (const block of [65_536, 4_096, 512, 16]) fill(join(data, `filler-${block}`), block);
  clock.advance(31 * MINUTE);
  await until(() => failures.length > 0, 'the rotation could not be written');
  clock.advance(15 * MINUTE);
  t.deepEqual(authority.issuer().certificate, before, 'what is not written does not sign while another can');
  t.is(authority.current().x509Authorities.length, 2, 'but it is public already');
  for (const name of readdirSync(data)) if (name.startsWith('filler')) rmSync(join(data, name));
  clock.advance(MINUTE);
  await until(() => !authority.issuer().certificate.equals(before), 'the successor signs as soon as it is written');
  remount(data, 'ro');
  const again = await open(clock);
  t.teardown(() => again.close());
  t.deepEqual(again.issuer().certificate, authority.issuer().certificate);
});

function mount(t: ExecutionContext, path: string, options: string): void {
  const { status, stderr } = spawnSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', path], { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
  t.teardown(() => void spawnSync('umount', ['-l', path]));
}

function remount(path: string, mode: 'ro' | 'rw'): void {
  const { status, stderr } = spawnSync('mount', ['-o', `remount,${mode}`, path], { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
}

function fill(path: string, block: number): void {
  try {
    for (let size = block; ; size += block) writeFileSync(path, Buffer.alloc(size, 1));
  } catch {
    // Full.
  }
}

async function first<T>(client: RawClient, method: string): Promise<T> {
  const stream = client.stream<T>(`${API}${method}`);
  const message = await stream.next();
  stream.cancel();
  return message;
}

function certificatesOf(bytes: Buffer): X509Certificate[] {
  const all: X509Certificate[] = [];
  for (let rest = bytes; rest.length > 0; rest = rest.subarray(all.at(-1)!.raw.length)) all.push(new X509Certificate(rest));
  return all;
}
