import test from 'ava';
import { JwtIdentities } from '../../src/identity/jwt-identities.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { evenRandom, newEvents, ScriptedSigner, settle, testEntry } from '../support/signers.ts';

const TTL = 300_000;

function setUp(perIdentity = 10, identities = 10) {
  const clock = new FakeClock();
  const signer = new ScriptedSigner(clock);
  const jwt = new JwtIdentities({ ttlMs: TTL, perIdentity, identities }, { signer, clock, random: evenRandom, events: newEvents() });
  const fetch = async (path: string, ...audience: string[]): Promise<string> => (await jwt.fetch(testEntry(path), audience)).token;
  return { clock, signer, jwt, fetch };
}

test('a token is fresh until half of its life', async (t) => {
  const { clock, signer, fetch } = setUp();
  t.is(await fetch('a', 'x'), '1');
  clock.advance(TTL / 2 - 1);
  t.is(await fetch('a', 'x'), '1');
  t.is(signer.count, 1);
});

test('after that it is still the answer, at once, while one renewal runs behind it', async (t) => {
  const { clock, signer, jwt } = setUp();
  const entry = testEntry('a');
  await jwt.fetch(entry, ['x']);
  clock.advance(TTL / 2);
  for (let i = 0; i < 100; i += 1) {
    const answer = jwt.fetch(entry, ['x']);
    t.false(answer instanceof Promise);
  }
  await settle();
  t.is(signer.count, 2);
  t.like(jwt.fetch(entry, ['x']), { token: '2' });
});

test('while the signer is away a valid token is answered at once, and the attempts back off', async (t) => {
  const { clock, signer, fetch } = setUp();
  await fetch('a', 'x');
  clock.advance(TTL / 2);
  signer.isAway = true;
  for (let i = 0; i < 140; i += 1) {
    t.is(await fetch('a', 'x'), '1');
    await settle();
    clock.advance(1_000);
  }
  signer.isAway = false;
  clock.advance(TTL);
  t.is(await fetch('a', 'x'), '2');
});

test('without any valid token the caller waits, and hears of the failure', async (t) => {
  const { clock, signer, fetch } = setUp();
  signer.isAway = true;
  await t.throwsAsync(fetch('a', 'x'), { code: 'authority_unavailable' });
  signer.isAway = false;
  t.is(await fetch('a', 'x'), '1');
  clock.advance(TTL);
  t.is(await fetch('a', 'x'), '2');
});

test('a thousand callers at once are one signature', async (t) => {
  const { signer, fetch } = setUp();
  const open = Promise.withResolvers<void>();
  signer.gate = open.promise;
  const all = Array.from({ length: 1_000 }, () => fetch('a', 'x'));
  open.resolve();
  t.deepEqual([...new Set(await Promise.all(all))], ['1']);
});

test('WA-37: the order of the audiences makes another token', async (t) => {
  const { signer, fetch } = setUp();
  await fetch('a', 'x', 'y');
  await fetch('a', 'y', 'x');
  await fetch('a', 'x,y');
  t.is(signer.count, 3);
});

test('who asks for many audiences displaces only the own tokens', async (t) => {
  const { signer, fetch } = setUp(10);
  await fetch('quiet', 'x');
  for (let i = 0; i < 1_000; i += 1) await fetch('greedy', `audience-${i}`);
  const before = signer.count;
  t.is(await fetch('quiet', 'x'), '1');
  t.is(signer.count, before);
  await fetch('greedy', 'audience-0');
  t.is(signer.count, before + 1);
});

test('after a step back of the clock a token from the future is not handed out', async (t) => {
  const { clock, fetch } = setUp();
  await fetch('a', 'x');
  clock.step(-60_000);
  t.is(await fetch('a', 'x'), '2');
});

test('no two lists of audiences share a token, whatever they look like', async (t) => {
  const { signer, fetch } = setUp(100);
  const lists = [['x'], ['["x"]'], ['["x","y"]'], ['x', 'y'], ['["["]'], ['['], ['"x"'], ['x","y'], ['x\n', 'y'], ['x', '\ny'], ['[]']];
  for (const list of lists) await fetch('a', ...list);
  t.is(signer.count, lists.length);
  for (const list of lists) await fetch('a', ...list);
  t.is(signer.count, lists.length);
});

test('a token that is used again stays, whatever else is asked for meanwhile', async (t) => {
  const { signer, fetch } = setUp(10);
  await fetch('a', 'often');
  for (let i = 0; i < 200; i += 1) {
    await fetch('a', 'often');
    await fetch('a', `once-${i}`);
  }
  t.is(signer.count, 201);
});

test('what is kept is bounded in both directions', async (t) => {
  const { jwt, fetch } = setUp(3, 4);
  for (let i = 0; i < 50; i += 1) {
    for (let audience = 0; audience < 10; audience += 1) await fetch(`w/${i}`, `x${audience}`);
    t.true(jwt.describeAll().tokens <= 12);
  }
});

test('an identity that had to go begins anew, for whoever still holds its entry', async (t) => {
  const { signer, jwt } = setUp(3, 1);
  const [a, b] = [testEntry('a'), testEntry('b')];
  t.is((await jwt.fetch(a, ['x'])).token, '1');
  t.is((await jwt.fetch(b, ['x'])).token, '2');
  t.is((await jwt.fetch(a, ['x'])).token, '3');
  t.is((await jwt.fetch(testEntry('a'), ['x'])).token, '3');
  t.is(signer.count, 3);
});
