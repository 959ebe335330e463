import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { EmbeddedAuthority } from '../../src/authority/embedded.ts';
import { EventBus, type Events } from '../../src/events.ts';
import { systemRandom } from '../../src/random.ts';
import { parseTrustDomain } from '../../src/spiffe/id.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { temporaryDirectory, until } from '../support/kernel-processes.ts';

const MINUTE = 60_000;
const TTL = 60 * MINUTE;

interface SetUp {
  readonly clock: FakeClock;
  readonly directory: string;
  readonly authority: EmbeddedAuthority;
  readonly steps: string[];
  readonly failures: Events['authorityFailed'][];
}

async function open(t: ExecutionContext, directory = temporaryDirectory(t), clock = new FakeClock()): Promise<SetUp> {
  const events = new EventBus();
  const steps: string[] = [];
  const failures: Events['authorityFailed'][] = [];
  events.on('authorityRotated', ({ kind, step }) => void steps.push(`${kind} ${step}`));
  events.on('authorityFailed', (fact) => void failures.push(fact));
  const options = { trustDomain: parseTrustDomain('example.org'), dataDir: directory, ttlMs: TTL };
  const authority = await EmbeddedAuthority.open(options, { clock, random: systemRandom, events });
  t.teardown(() => authority.close());
  return { clock, directory, authority, steps, failures };
}

test('the first keys are made, written, and sign at once', async (t) => {
  const { authority, steps, directory } = await open(t);
  t.deepEqual(steps, ['x509 prepared', 'jwt prepared', 'x509 activated', 'jwt activated']);
  t.deepEqual(authority.current().x509Authorities, [authority.issuer().certificate]);
  t.deepEqual(authority.current().jwtAuthorities.map(({ kid }) => kid), [authority.jwtKey().kid]);
  t.deepEqual(readdirSync(directory), ['embedded-authority.json']);
});

test('FED-03: whenever the bundle changes, the key that signs at that moment is in it', async (t) => {
  const { clock, authority } = await open(t);
  let told = 0;
  authority.onChange((bundle) => {
    told += 1;
    t.true(bundle.x509Authorities.includes(authority.issuer().certificate));
    t.true(bundle.jwtAuthorities.some(({ kid }) => kid === authority.jwtKey().kid));
  });
  for (const deltaMs of [2 * TTL, -TTL, 30 * TTL, -40 * TTL]) {
    const before = told;
    clock.step(deltaMs);
    await until(() => (clock.advance(1), told > before), 'the bundle has changed');
  }
});

test('when time leaps while keys are being made, whoever waits gets those that are due after it', async (t) => {
  const { clock, authority } = await open(t);
  const began = authority.issuer();
  // The turn that prepares successors has begun, and what it makes has ended when it is made.
  clock.advance(TTL / 2);
  clock.advance(30 * TTL);
  await authority.ready();
  t.true(authority.issuer().notAfter > clock.now());
  t.not(authority.issuer(), began);
  t.true(authority.jwtKey().notAfter > clock.now());
});

test('FED-03: while new keys are being made for want of any other, nothing is signed with one that is not public', async (t) => {
  const { clock, authority } = await open(t);
  clock.step(3 * TTL);
  let looks = 0;
  const isPublic = (): boolean => {
    looks += 1;
    try {
      return authority.current().x509Authorities.includes(authority.issuer().certificate) && authority.jwtKey() !== undefined;
    } catch {
      // Nothing signs: no key can be unknown.
      return true;
    }
  };
  let isMade = false;
  const made = authority.ready().then(() => (isMade = true));
  while (!isMade) {
    t.true(isPublic());
    await new Promise((resolve) => setImmediate(resolve));
  }
  await made;
  t.true(looks > 0);
  t.notThrows(() => authority.issuer());
  t.notThrows(() => authority.jwtKey());
});

test('whoever is ready is so at once, without waiting for a rotation', async (t) => {
  const { clock, authority, directory } = await open(t);
  mkdirSync(join(directory, 'embedded-authority.json.new'));
  clock.advance(31 * MINUTE);
  await t.notThrowsAsync(authority.ready());
  t.notThrows(() => authority.issuer());
});

test('what cannot be written is tried again after a second, then two, and at last every minute', async (t) => {
  const { clock, authority, directory, failures } = await open(t);
  const before = authority.issuer().certificate;
  const obstacle = join(directory, 'embedded-authority.json.new');
  mkdirSync(obstacle);
  clock.advance(31 * MINUTE);
  for (let attempt = 1; attempt <= 8; attempt += 1) {
    await until(() => failures.length === attempt, `attempt ${attempt}`);
    clock.advance(failures.at(-1)!.retryMs);
  }
  t.deepEqual(failures.slice(0, 8).map(({ retryMs }) => retryMs), [1, 2, 4, 8, 16, 32, 60, 60].map((seconds) => seconds * 1_000));
  t.is(authority.issuer().certificate, before, 'the old one goes on');
  await until(() => failures.length === 9, 'attempt 9');
  rmSync(obstacle, { recursive: true });
  clock.advance(MINUTE);
  await until(() => readFileSync(join(directory, 'embedded-authority.json'), 'utf8').split('BEGIN CERTIFICATE').length === 3, 'both roots are written');
  clock.advance(15 * MINUTE);
  await until(() => authority.issuer().certificate !== before, 'the new one signs');
  t.is(failures.length, 9);
});

test('an authority that was closed while it made keys writes nothing any more', async (t) => {
  const { clock, authority, directory } = await open(t);
  const path = join(directory, 'embedded-authority.json');
  const before = readFileSync(path, 'utf8');
  clock.step(3 * TTL);
  const made = authority.ready();
  authority.close();
  await made;
  t.is(readFileSync(path, 'utf8'), before, 'its successor may have the directory already');
  t.is(clock.pending, 0, 'it waits for nothing');
});
