import { decodeJwt } from 'jose';
import test from 'ava';
import { DAY, firstOf, HOUR, isSignedByOneOf, isValidAt, leafOf, MINUTE, nextOn, SECOND, startTimedAgent, API, whileMoving, type Svids } from './timed-agent.ts';

const JWT = `${API}FetchJWTSVID`;

test('XS-29: when the clock goes forward beyond the end of every key, an open stream gets a valid SVID at once, without a failure', async (t) => {
  const { clock, agent, client } = await startTimedAgent(t);
  const failures: string[] = [];
  agent.agent.events.on('issuanceFailed', ({ error }) => void failures.push(error));
  const stream = client.stream<Svids>(`${API}FetchX509SVID`);
  await stream.next();
  for (let step = 0; step < 5; step += 1) {
    clock.step(10 * DAY);
    const message = await nextOn(clock, stream);
    t.true(isValidAt(leafOf(message), clock.now()), `step ${step}: the SVID is valid`);
    t.true(isSignedByOneOf(leafOf(message), message.svids[0]!.bundle), `step ${step}: it verifies with the bundle that came with it`);
  }
  t.deepEqual(failures, []);
});

test('JS-19: when the clock goes forward beyond the end of every key, a token is had at once, and it is valid', async (t) => {
  const { clock, client } = await startTimedAgent(t);
  const request = { audience: ['x'] };
  await client.unary<Svids>(JWT, request);
  for (let step = 0; step < 5; step += 1) {
    clock.step(10 * DAY);
    const { svids } = await client.unary<Svids>(JWT, request);
    t.true((decodeJwt(svids[0]!.svid).exp ?? 0) * SECOND > clock.now());
    await t.notThrowsAsync(client.unary(`${API}ValidateJWTSVID`, { audience: 'x', svid: svids[0]!.svid }), `step ${step}`);
  }
});

for (const [name, backMs] of [['two minutes', 2 * MINUTE], ['an hour, which is before the root began', HOUR]] as const) {
  test(`XS-29, XS-44: when the clock goes back by ${name}, an open stream gets an SVID that is valid then`, async (t) => {
    const { clock, client } = await startTimedAgent(t);
    const stream = client.stream<Svids>(`${API}FetchX509SVID`);
    const before = leafOf(await stream.next());
    clock.step(-backMs);
    t.false(isValidAt(before, clock.now()));
    let message: Svids;
    do message = await nextOn(clock, stream);
    while (leafOf(message).serialNumber === before.serialNumber);
    t.true(isValidAt(leafOf(message), clock.now()));
    t.true(isSignedByOneOf(leafOf(message), message.svids[0]!.bundle));
  });
}

test('after a step back a token from the future is not handed out, and the new one validates', async (t) => {
  const { clock, client } = await startTimedAgent(t);
  const first = await client.unary<Svids>(JWT, { audience: ['x'] });
  clock.step(-2 * MINUTE);
  const second = await client.unary<Svids>(JWT, { audience: ['x'] });
  t.not(second.svids[0]!.svid, first.svids[0]!.svid);
  t.true((decodeJwt(second.svids[0]!.svid).iat ?? Infinity) * SECOND <= clock.now());
  await t.notThrowsAsync(client.unary(`${API}ValidateJWTSVID`, { audience: 'x', svid: second.svids[0]!.svid }));
});

test('FED-03: while the clock jumps back and forth, what a client holds at last is valid and verifies', async (t) => {
  const { clock, client } = await startTimedAgent(t);
  const stream = client.stream<Svids>(`${API}FetchX509SVID`);
  let held = await stream.next();
  for (const deltaMs of [HOUR, -2 * HOUR, 3 * DAY, -DAY, -3 * DAY, 90 * SECOND, -90 * SECOND, 40 * DAY]) {
    clock.step(deltaMs);
    while (!isValidAt(leafOf(held), clock.now())) held = await nextOn(clock, stream);
    t.true(isSignedByOneOf(leafOf(held), held.svids[0]!.bundle), `after ${deltaMs} ms`);
    const fresh = await firstOf<Svids>(client, 'FetchX509SVID');
    t.true(isSignedByOneOf(leafOf(fresh), fresh.svids[0]!.bundle), `a new stream after ${deltaMs} ms`);
  }
});

test('while the clock stands still callers are answered, with one SVID and one token', async (t) => {
  const { client } = await startTimedAgent(t);
  const serials = new Set<string>();
  const tokens = new Set<string>();
  for (let call = 0; call < 5; call += 1) {
    serials.add(leafOf(await firstOf<Svids>(client, 'FetchX509SVID')).serialNumber);
    tokens.add((await client.unary<Svids>(JWT, { audience: ['x'] })).svids[0]!.svid);
  }
  t.deepEqual([serials.size, tokens.size], [1, 1]);
});

test('WA-25: a step forward does not make a withdrawal early', async (t) => {
  const { clock, agent, client } = await startTimedAgent(t);
  const stream = client.stream(`${API}FetchX509Bundles`);
  await stream.next();
  agent.agent.replaceEntries([]);
  clock.step(HOUR);
  await t.notThrowsAsync(client.unary(JWT, { audience: ['x'] }));
  clock.advance(9 * SECOND);
  agent.agent.replaceEntries(agent.config.entries);
  clock.advance(MINUTE);
  await t.notThrowsAsync(client.unary(JWT, { audience: ['x'] }));
  t.is(agent.agent.counters.refused('no_identity'), 0, 'the open stream goes on');
});

test('WA-25: a step back does not make a withdrawal late', async (t) => {
  const { clock, agent, client } = await startTimedAgent(t);
  const stream = client.stream(`${API}FetchX509Bundles`);
  await stream.next();
  agent.agent.replaceEntries([]);
  clock.step(-DAY);
  clock.advance(10 * SECOND);
  t.deepEqual(await whileMoving(clock, () => stream.ended()), { code: 7, details: 'no identity issued' });
  await t.throwsAsync(client.unary(JWT, { audience: ['x'] }), { code: 7, message: 'no identity issued' });
});
