import { decodeJwt } from 'jose';
import test from 'ava';
import { systemRandom, type Random } from '../../../src/random.ts';
import { parseSpiffeId } from '../../../src/spiffe/id.ts';
import { OWN_ID } from '../../support/agent.ts';
import { RawClient } from '../../support/raw-client.ts';
import { API, firstOf, HOUR, leafOf, MINUTE, nextOn, SECOND, SELF, startTimedAgent, TD, whileMoving, type Svids } from './timed-agent.ts';

const SVID = `${API}FetchX509SVID`;
const JWT = `${API}FetchJWTSVID`;

function drawn(fraction: number): Random {
  return { ...systemRandom, fraction: () => fraction };
}

for (const [fraction, minutes] of [[0, 24], [0.5, 30], [0.999_999, 36]] as const) {
  test(`an SVID of an hour is renewed ${minutes} minutes after it was issued when the jitter is ${fraction}, counted from issuance`, async (t) => {
    const { clock, client } = await startTimedAgent(t, { random: drawn(fraction) });
    const stream = client.stream<Svids>(SVID);
    const first = await stream.next();
    const issued = clock.now();
    t.is(leafOf(first).validFromDate.getTime(), issued - MINUTE, 'it is back-dated, which does not count');
    clock.advance(minutes * MINUTE - 5 * SECOND);
    const second = await whileMoving(clock, () => stream.next(), 100);
    // Its end tells when it was made: an hour before, to the second.
    const after = leafOf(second).validToDate.getTime() - HOUR - issued;
    t.true(Math.abs(after - minutes * MINUTE) <= 2 * SECOND, `it was made after ${after / SECOND} s`);
    t.not(leafOf(second).serialNumber, leafOf(first).serialNumber);
    t.false(second.svids[0]!.x509_svid_key.equals(first.svids[0]!.x509_svid_key), 'the key is a new one too');
  });
}

test('who comes back gets the SVID that was kept, and all readers have the same one', async (t) => {
  const { clock, agent, client } = await startTimedAgent(t);
  const first = await firstOf<Svids>(client, 'FetchX509SVID');
  clock.advance(10 * MINUTE);
  const other = new RawClient(agent.socketPath);
  t.teardown(() => other.close());
  const again = await firstOf<Svids>(other, 'FetchX509SVID');
  t.deepEqual(again, first);
  t.is(agent.agent.counters.issued('x509'), 1);
});

test('without readers nothing is renewed', async (t) => {
  const { clock, agent, client } = await startTimedAgent(t);
  const stream = client.stream<Svids>(SVID);
  await stream.next();
  stream.cancel();
  await whileMoving(clock, async () => {
    while (agent.agent.taken.calls > 0) await new Promise((resolve) => setTimeout(resolve, 2));
  });
  clock.advance(50 * MINUTE);
  t.is(agent.agent.counters.issued('x509'), 1);
});

test('an open stream follows what is changed of its entry: a shorter life makes a new SVID, a hint only a new message', async (t) => {
  const { clock, agent, client } = await startTimedAgent(t);
  const entry = agent.config.entries[0]!;
  const stream = client.stream<Svids>(SVID);
  const first = await stream.next();
  agent.agent.replaceEntries([{ ...entry, x509TtlMs: 10 * MINUTE }]);
  const second = await nextOn(clock, stream);
  const leaf = leafOf(second);
  t.is(leaf.validToDate.getTime() - leaf.validFromDate.getTime(), 11 * MINUTE);
  t.not(leaf.serialNumber, leafOf(first).serialNumber);
  agent.agent.replaceEntries([{ ...entry, x509TtlMs: 10 * MINUTE, hint: 'internal' }]);
  const third = await nextOn(clock, stream);
  t.is(third.svids[0]!.hint, 'internal');
  t.is(leafOf(third).serialNumber, leaf.serialNumber);
});

test('a shorter life of tokens counts for the next call', async (t) => {
  const { agent, client } = await startTimedAgent(t);
  const life = async (): Promise<number> => {
    const { iat = 0, exp = 0 } = decodeJwt((await client.unary<Svids>(JWT, { audience: ['x'] })).svids[0]!.svid);
    return exp - iat;
  };
  t.is(await life(), 300);
  agent.agent.replaceEntries(agent.config.entries.map((entry) => ({ ...entry, jwtTtlMs: MINUTE })));
  t.is(await life(), 60);
});

test('WA-09, WA-21: a caller that loses one of three identities is told the two that are left, each complete', async (t) => {
  const entries = ['a', 'b', 'c'].map((name) => ({ id: `${TD}/${name}`, selectors: SELF, hint: name }));
  const { clock, agent, client } = await startTimedAgent(t, { config: { entries } });
  const stream = client.stream<Svids>(SVID);
  const before = await stream.next();
  agent.agent.replaceEntries(agent.config.entries.filter(({ hint }) => hint !== 'b'));
  clock.advance(10 * SECOND);
  const after = await nextOn(clock, stream);
  t.deepEqual(after.svids, [before.svids[0]!, before.svids[2]!], 'the others stay as they were');
  t.deepEqual((await client.unary<Svids>(JWT, { audience: ['x'] })).svids.map(({ hint }) => hint), ['a', 'c']);
  await t.throwsAsync(client.unary(JWT, { audience: ['x'], spiffe_id: `${TD}/b` }), { code: 7, message: 'no identity issued' });
});

test('WA-74: new identities do not displace the default one of an open stream when it has priority', async (t) => {
  const { clock, agent, client } = await startTimedAgent(t, { config: { entries: [{ id: `${TD}/m`, selectors: SELF }] } });
  const stream = client.stream<Svids>(SVID);
  await stream.next();
  const entry = agent.config.entries[0]!;
  agent.agent.replaceEntries([{ ...entry, id: parseSpiffeId(`${TD}/a`) }, { ...entry, priority: 1 }, { ...entry, id: parseSpiffeId(`${TD}/z`) }]);
  t.deepEqual((await nextOn(clock, stream)).svids.map(({ spiffe_id }) => spiffe_id), [`${TD}/m`, `${TD}/a`, `${TD}/z`]);
});

test('a token is fresh to half of its life; then it is still the answer while one renewal runs, and the next call gets the new one', async (t) => {
  const { clock, agent, client } = await startTimedAgent(t, { random: drawn(0.5) });
  const fetch = async (): Promise<string> => (await client.unary<Svids>(JWT, { audience: ['x'] })).svids[0]!.svid;
  const first = await fetch();
  clock.advance(149 * SECOND);
  t.is(await fetch(), first);
  t.is(agent.agent.counters.issued('jwt'), 1);
  clock.advance(2 * SECOND);
  t.is(await fetch(), first, 'the answer does not wait');
  while (agent.agent.counters.issued('jwt') < 2) await new Promise((resolve) => setImmediate(resolve));
  t.not(await fetch(), first);
  t.is(agent.agent.counters.issued('jwt'), 2);
});

test('JS-21: a token that has ended is never the answer', async (t) => {
  const { clock, client } = await startTimedAgent(t);
  const fetch = async (): Promise<string> => (await client.unary<Svids>(JWT, { audience: ['x'] })).svids[0]!.svid;
  const first = await fetch();
  clock.advance(5 * MINUTE);
  t.not(await fetch(), first);
  clock.advance(6 * SECOND);
  await t.throwsAsync(client.unary(`${API}ValidateJWTSVID`, { audience: 'x', svid: first }), { code: 3, message: 'token has expired' });
});

test('a hundred calls for one token at once are one signature', async (t) => {
  const { agent, client } = await startTimedAgent(t);
  const answers = await Promise.all(Array.from({ length: 100 }, () => client.unary<Svids>(JWT, { audience: ['x'] })));
  t.is(new Set(answers.map(({ svids }) => svids[0]!.svid)).size, 1);
  t.is(agent.agent.counters.issued('jwt'), 1);
  t.is(answers[0]!.svids[0]!.spiffe_id, OWN_ID);
});
