import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { FollowedRoots } from '../../src/authority/followed-roots.ts';
import type { Log } from '../../src/log.ts';
import { parseTrustDomain } from '../../src/spiffe/id.ts';
import { testCa } from '../support/authorities.ts';
import { FakeClock } from '../support/fake-clock.ts';

const HOUR = 3_600_000;
const OVERLAP = 60_000;
const trustDomain = parseTrustDomain('example.org');
const [old, next] = [await testCa({}), await testCa({})];
const foreign = await testCa({ uris: ['spiffe://other.test'] });
const expired = await testCa({ to: Date.UTC(2029, 11, 1) });

function setUp(t: ExecutionContext, given: readonly Buffer[] = [old.certificate]) {
  const clock = new FakeClock();
  const directory = mkdtempSync(join(tmpdir(), 'signet-followed-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const warnings: string[] = [];
  const log: Log = { debug: () => undefined, info: () => undefined, error: () => undefined, warn: ({ reason = '' }) => void warnings.push(reason) };
  const listeners = new Set<() => void>();
  let roots = given;
  const source = {
    overlapMs: OVERLAP,
    roots: () => roots,
    onChange: (listener: () => void) => {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
  const give = (...ders: readonly Buffer[]): void => {
    roots = ders;
    for (const listener of listeners) listener();
  };
  const open = (): FollowedRoots => new FollowedRoots({ trustDomain, directory, holdMs: HOUR }, { clock, log, source });
  return { clock, warnings, give, open, file: join(directory, 'followed-roots.json') };
}

test('FED-02: a new root is in the bundle at once, and usable after the overlap', async (t) => {
  const { clock, give, open } = setUp(t);
  const followed = open();
  let changes = 0;
  followed.onChange(() => void (changes += 1));
  clock.advance(HOUR);
  give(old.certificate, next.certificate);
  t.deepEqual(followed.roots(), [old.certificate, next.certificate]);
  t.is(followed.usableFrom(next.certificate), clock.now() + OVERLAP);
  t.is(followed.usableFrom(foreign.certificate), Infinity);
  t.is(changes, 1);
  give(old.certificate, next.certificate);
  t.is(changes, 1, 'the same is no change');
  await followed.close();
});

test('FED-04: a root that the CA has left stays until all under it has ended; that none is known at present is no change', async (t) => {
  const { clock, give, open } = setUp(t, [old.certificate, next.certificate]);
  const followed = open();
  give();
  t.is(followed.roots().length, 2);
  give(next.certificate);
  clock.advance(HOUR + OVERLAP - 1);
  t.is(followed.roots().length, 2);
  clock.advance(1);
  t.deepEqual(followed.roots(), [next.certificate]);
  await followed.close();
});

test('it survives a restart while the CA is away, in a file for nobody else', async (t) => {
  const { clock, give, open, file } = setUp(t);
  const first = open();
  const since = clock.now();
  await first.close();
  t.is(statSync(file).mode & 0o777, 0o600);
  give();
  clock.advance(HOUR);
  const second = open();
  t.deepEqual(second.roots(), [old.certificate]);
  t.is(second.usableFrom(old.certificate), since + OVERLAP);
  await second.close();
});

test('a root of another trust domain and one that has expired are left out; the first is told, once', async (t) => {
  const { warnings, give, open } = setUp(t);
  const followed = open();
  give(old.certificate, foreign.certificate, expired.certificate);
  give(old.certificate, foreign.certificate, expired.certificate, next.certificate);
  t.deepEqual(followed.roots(), [old.certificate, next.certificate]);
  t.is(warnings.length, 1);
  t.regex(warnings[0] ?? '', /other\.test.*What to do/);
  await followed.close();
});

for (const [what, change] of [
  ['damaged', (text: string) => text.slice(0, 40)],
  ["another trust domain's", (text: string) => text.replace('"example.org"', '"other.test"')],
] as const) {
  test(`a file that is ${what} is refused with what to do, and stays as it is`, async (t) => {
    const { open, file } = setUp(t);
    await open().close();
    const text = change(readFileSync(file, 'utf8'));
    writeFileSync(file, text);
    t.throws(open, { code: 'state_refused', message: /move it away/ });
    t.is(readFileSync(file, 'utf8'), text);
  });
}
