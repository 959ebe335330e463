import { createHash } from 'node:crypto';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { jwtAuthority, newKeyPair } from '../../src/authority/keys.ts';
import { SignetError } from '../../src/errors.ts';
import { BundleKeeper } from '../../src/upstream/spire/bundle-keeper.ts';
import type { Store } from '../../src/upstream/spire/agent-state.ts';
import type { WireBundle, WireJwtKey } from '../../src/upstream/spire/messages.ts';
import { withoutRevoked } from '../../src/upstream/spire/revoked-roots.ts';
import { certificatePem, testIssuer } from '../support/authorities.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { listen, scratch, trustDomain } from './spire-tools.ts';

const HOUR = 3_600_000;

async function rootOf(clock: FakeClock, lifeMs = 24 * HOUR): Promise<Buffer> {
  return (await testIssuer(clock.now() - HOUR, clock.now() + lifeMs)).certificate;
}

async function jwtKey(keyId: string, expiresAtMs = 0): Promise<WireJwtKey> {
  const { publicKey } = await newKeyPair('ec-p256');
  return { keyId, publicKey: publicKey.export({ format: 'der', type: 'spki' }), expiresAt: expiresAtMs / 1_000, tainted: false };
}

function wire(roots: readonly (Buffer | { asn1: Buffer; tainted: boolean })[], jwt: readonly WireJwtKey[] = [], of = 'example.org'): WireBundle {
  const x509Authorities = roots.map((root) => (Buffer.isBuffer(root) ? { asn1: root, tainted: false } : root));
  return { trustDomain: of, x509Authorities, jwtAuthorities: jwt, refreshHint: 0 };
}

async function scene(t: ExecutionContext) {
  const clock = new FakeClock(Math.floor(Date.now() / 1000) * 1000);
  const bundleFile = join(scratch(t), 'bundle.pem');
  const first = await rootOf(clock);
  writeFileSync(bundleFile, certificatePem(first));
  let text: string | undefined;
  const store: Store & { refuse?: boolean } = {
    path: '/state/spire-bundle.json',
    read: () => text,
    write: async (next) => {
      if (store.refuse) throw new SignetError('state_unwritable', 'the disk is full');
      text = next;
    },
  };
  const told = listen();
  const bad = new Set<Buffer>();
  const judgeRoot = (root: Buffer): string | undefined => ([...bad].some((one) => one.equals(root)) ? 'it is for evil.org' : undefined);
  const open = (): BundleKeeper => new BundleKeeper({ trustDomain, bundleFile }, { clock, log: told.tools.log, store, jwtAuthority, judgeRoot });
  return { clock, bundleFile, first, store, told, bad, open, write: (next: string) => void (text = next), text: () => text };
}

test('the file is for the first contact; then the bundle of the server counts, until the file is changed', async (t) => {
  const { open, first, clock, bundleFile } = await scene(t);
  const bundle = open();
  t.deepEqual(await bundle.anchors(), [first]);
  t.deepEqual(bundle.roots(), []);
  const next = await rootOf(clock);
  bundle.take(wire([next]));
  t.deepEqual(await bundle.anchors(), [next]);
  const written = await rootOf(clock);
  writeFileSync(bundleFile, certificatePem(written));
  t.deepEqual(await bundle.anchors(), [next, written]);
  bundle.take(wire([written]));
  t.deepEqual(await bundle.anchors(), [written]);
  rmSync(bundleFile);
  t.deepEqual(await bundle.anchors(), [written]);
});

test('without file and bundle nobody is believed', async (t) => {
  const { open, bundleFile } = await scene(t);
  for (const text of [undefined, '', 'nothing']) {
    if (text === undefined) rmSync(bundleFile);
    else writeFileSync(bundleFile, text);
    await t.throwsAsync(open().anchors(), { message: /trust bundle of the SPIRE server in .*bundle\.pem cannot be used: .*What to do: write there what "spire-server bundle show" prints/ });
  }
});

test('what was known survives a restart, and whoever looks sees the same values as long as nothing changes', async (t) => {
  const { open, clock, first } = await scene(t);
  const bundle = open();
  const keys = [await jwtKey('of-the-server'), await jwtKey('of-a-node', clock.now() + HOUR)];
  await bundle.anchors();
  bundle.take(wire([first], keys));
  let changes = 0;
  bundle.onChange(() => (changes += 1));
  const [roots, jwt] = [bundle.roots(), bundle.jwtAuthorities()];
  bundle.take(wire([first], keys));
  t.is(bundle.roots(), roots);
  t.is(bundle.jwtAuthorities(), jwt);
  t.is(changes, 0);
  await bundle.close();
  const again = open();
  t.deepEqual(again.roots(), [first]);
  t.deepEqual(again.jwtAuthorities().map(({ kid }) => kid), ['of-the-server', 'of-a-node']);
  clock.advance(HOUR);
  again.prune();
  t.deepEqual(again.jwtAuthorities().map(({ kid }) => kid), ['of-the-server']);
});

test('a bundle of another trust domain, an empty one, and one that cannot be read change nothing', async (t) => {
  const { open, first } = await scene(t);
  const bundle = open();
  bundle.take(wire([first]));
  t.throws(() => bundle.take(wire([first], [], 'evil.org')), { message: /that of the trust domain "evil\.org", and this agent serves "example\.org"\. What to do: set trustDomain or authority\.spire\.address/ });
  t.throws(() => bundle.take(wire([])), { message: /holds no X\.509 authority/ });
  t.throws(() => bundle.take(wire([Buffer.from('x')])), { message: /something that is no certificate/ });
  t.deepEqual(bundle.roots(), [first]);
});

test('a root of another trust domain, and a JWT key that cannot be read, are left out and told once', async (t) => {
  const { open, first, clock, bad, told } = await scene(t);
  const bundle = open();
  const evil = await rootOf(clock);
  bad.add(evil);
  const broken = { keyId: 'broken', publicKey: Buffer.from('x'), expiresAt: 0, tainted: false };
  const good = await jwtKey('good');
  bundle.take(wire([first, evil], [broken, good]));
  bundle.take(wire([first, evil], [good, broken]));
  t.deepEqual(bundle.roots(), [first]);
  t.deepEqual(bundle.jwtAuthorities().map(({ kid }) => kid), ['good']);
  t.is(told.lines.length, 2);
  t.is(told.lines[0], 'upstream.warning: a root in the bundle of the SPIRE server is left out: it is for evil.org');
  t.regex(told.lines[1] ?? '', /^upstream\.warning: the JWT key "broken" in the bundle of the SPIRE server is left out: /);
});

test('a root that was tainted and has gone is revoked, after a restart too; one that has just gone is not', async (t) => {
  const { open, first, clock } = await scene(t);
  const bundle = open();
  const [tainted, plain] = [await rootOf(clock, 2 * HOUR), await rootOf(clock)];
  bundle.take(wire([first, { asn1: tainted, tainted: true }, plain]));
  t.true(bundle.isTainted(tainted));
  t.false(bundle.isRevoked(tainted));
  const own = { current: () => ({ trustDomain, x509Authorities: [first, tainted, plain], jwtAuthorities: [] }), onChange: () => () => undefined };
  const told: number[] = [];
  const source = withoutRevoked(own, bundle);
  source.onChange(({ x509Authorities }) => void told.push(x509Authorities.length));
  bundle.take(wire([first]));
  t.true(bundle.isRevoked(tainted));
  t.false(bundle.isRevoked(plain));
  t.deepEqual(source.current().x509Authorities, [first, plain]);
  t.deepEqual(told, [2]);
  await bundle.close();
  t.true(open().isRevoked(tainted));
  clock.advance(3 * HOUR);
  bundle.take(wire([first], [await jwtKey('new')]));
  t.false(bundle.isRevoked(tainted));
});

test('a bundle that cannot be kept is used, and that is told', async (t) => {
  const { open, first, store, told } = await scene(t);
  store.refuse = true;
  const bundle = open();
  bundle.take(wire([first]));
  t.deepEqual(bundle.roots(), [first]);
  await bundle.close();
  t.regex(told.lines.join('\n'), /the trust bundle cannot be kept, so that a restart while the SPIRE server is away does not have it: the disk is full/);
});

for (const [what, change, message] of [
  ['damaged', () => '{', /is damaged or foreign: .*What to do: move it away; the bundle is then read from the SPIRE server again/],
  ['of another form', (text: string) => text.replace('"version": 1', '"version": 2'), /it has another form/],
  ['of another trust domain', (text: string) => text.replace('example.org', 'other.org'), /it belongs to the trust domain "other\.org"/],
  ['without its roots', (text: string) => text.replace('"x509"', '"x510"'), /x509 is no list/],
] as const) {
  test(`a state that is ${what} is refused at the start`, async (t) => {
    const { open, first, write, text } = await scene(t);
    const bundle = open();
    bundle.take(wire([first]));
    await bundle.close();
    write(change(text() ?? ''));
    t.throws(open, { code: 'state_refused', message });
  });
}

test('what is kept of the file is its fingerprint', async (t) => {
  const { open, first, text } = await scene(t);
  const bundle = open();
  await bundle.anchors();
  bundle.take(wire([first]));
  await bundle.close();
  t.true(text()?.includes(createHash('sha256').update(certificatePem(first).trim()).digest('hex')));
});
