import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { SystemClock } from '../../src/clock.ts';
import { openAudit } from '../../src/telemetry/audit.ts';
import { OWN_ID } from '../support/agent.ts';
import { RawClient } from '../support/raw-client.ts';
import { observeAgent } from './observed-agent.ts';
import { scrape, type Scrape } from './scrape.ts';
import { silentLog } from './observed.ts';

const API = '/SpiffeWorkloadAPI/';

async function setUp(t: ExecutionContext, config: Readonly<Record<string, unknown>> = {}) {
  const observed = await observeAgent(config);
  t.teardown(observed.stop);
  const client = (): RawClient => {
    const one = new RawClient(observed.agent.socketPath);
    t.teardown(() => one.close());
    return one;
  };
  return { ...observed, client, read: () => scrape(observed.address) };
}

const total = (scraped: Scrape, ...samples: string[]): (number | undefined)[] => samples.map((sample) => scraped.of(sample));

test('a stream counts as a connection, a first X.509-SVID that was signed, and the time it took', async (t) => {
  const { client, read } = await setUp(t);
  const before = await read();
  t.deepEqual(total(before, 'signet_svids_issued_total{kind="x509",step="first"}', 'signet_first_svid_duration_seconds_count{kind="x509"}'), [0, 0]);
  const one = client();
  const stream = one.stream(`${API}FetchX509SVID`);
  await stream.next();
  const after = await read();
  t.is(after.of('signet_connections_accepted_total'), 1);
  t.is(after.of('signet_svids_issued_total{kind="x509",step="first"}'), 1);
  t.is(after.of('signet_svid_signing_duration_seconds_count{kind="x509"}'), 1);
  t.is(after.of('signet_first_svid_duration_seconds_count{kind="x509"}'), 1);
  // A second stream of the connection did not wait for it.
  await one.stream(`${API}FetchX509SVID`).next();
  t.is((await read()).of('signet_first_svid_duration_seconds_count{kind="x509"}'), 1);
});

test('the first token is a miss, the next of the same audiences a hit', async (t) => {
  const { client, read } = await setUp(t);
  const one = client();
  for (let i = 0; i < 3; i += 1) await one.unary(`${API}FetchJWTSVID`, { audience: ['x'] });
  const after = await read();
  t.is(after.of('signet_jwt_cache_requests_total{result="miss"}'), 1);
  t.is(after.of('signet_jwt_cache_requests_total{result="hit"}'), 2);
  t.is(after.of('signet_svids_issued_total{kind="jwt",step="first"}'), 1);
  t.is(after.of('signet_first_svid_duration_seconds_count{kind="jwt"}'), 1);
});

test('a refusal moves the counter of its reason and no other', async (t) => {
  const { client, read } = await setUp(t);
  await t.throwsAsync(client().unary(`${API}FetchJWTSVID`, { audience: ['x'] }, []), { message: /security header/ });
  const after = await read();
  const moved = [...after.text.matchAll(/^signet_refusals_total\{reason="(\w+)"\} [1-9]/gm)].map(([, reason]) => reason);
  t.deepEqual(moved, ['missing_header']);
});

test('the audit log tells who was given what, of a whole agent', async (t) => {
  const { agent, client } = await setUp(t);
  const path = join(agent.directory, 'audit.log');
  const audit = openAudit(path, { events: agent.agent.events, clock: new SystemClock(), log: silentLog, describePod: () => undefined });
  const one = client();
  await one.stream(`${API}FetchX509SVID`).next();
  const token = await one.unary<{ svids: { svid: string }[] }>(`${API}FetchJWTSVID`, { audience: ['x'] });
  await t.throwsAsync(one.unary(`${API}FetchJWTSVID`, { audience: ['x'], spiffe_id: 'spiffe://example.org/other' }));
  await audit.close();
  const text = readFileSync(path, 'utf8');
  const lines = text.split('\n').slice(0, -1).map((line) => JSON.parse(line) as Record<string, string | number>);
  t.deepEqual(
    lines.map(({ event, kind, reason, method }) => [event, kind ?? reason, method]),
    [
      ['issued', 'x509', undefined],
      ['served', 'x509', 'FetchX509SVID'],
      ['issued', 'jwt', undefined],
      ['served', 'jwt', 'FetchJWTSVID'],
      ['refused', 'not_its_identity', 'FetchJWTSVID'],
    ],
  );
  const [issued, served, issuedJwt] = lines;
  t.is(issued?.['spiffe_id'], OWN_ID);
  t.is(served?.['serial'], issued?.['serial']);
  t.is(served?.['pid'], process.pid);
  t.is(served?.['uid'], process.geteuid?.());
  t.regex(String(issuedJwt?.['kid']), /^[\w-]{43}$/);
  const [{ svid = '' } = {}] = token.svids;
  t.true(svid.length > 100);
  t.false(text.includes(svid.slice(-40)), 'no token stands in it');
});
