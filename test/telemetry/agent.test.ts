import { readFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { OWN_ID } from '../support/agent.ts';
import { temporaryDirectory } from '../support/kernel-processes.ts';
import { RawClient } from '../support/raw-client.ts';
import { observeAgent } from './observed-agent.ts';
import { http, scrape, type Scrape } from './scrape.ts';

const API = '/SpiffeWorkloadAPI/';

async function setUp(t: ExecutionContext, config: Readonly<Record<string, unknown>> = {}) {
  const observed = await observeAgent(config);
  t.teardown(observed.stop);
  const client = (): RawClient => {
    const one = new RawClient(observed.socketPath);
    t.teardown(() => one.close());
    return one;
  };
  const readiness = async (): Promise<object> => {
    const { status, body } = await http(observed.address, '/ready');
    return { status, ...(JSON.parse(body) as object) };
  };
  return { ...observed, client, readiness, read: () => scrape(observed.address) };
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

test('what is open, what is held and what signs is read from the rooms', async (t) => {
  const { client, read, readiness } = await setUp(t);
  const one = client();
  const stream = one.stream(`${API}FetchX509SVID`);
  await stream.next();
  await one.unary(`${API}FetchJWTSVID`, { audience: ['x'] });
  const after = await read();
  const figures: Readonly<Record<string, number>> = {
    signet_ready: 1,
    signet_connections: 1,
    signet_calls: 1,
    signet_streams: 1,
    signet_owners: 1,
    signet_entries: 1,
    'signet_identities{kind="x509"}': 1,
    'signet_identities{kind="jwt"}': 1,
    'signet_bundle_authorities{kind="x509"}': 1,
    'signet_bundle_authorities{kind="jwt"}': 1,
  };
  for (const [sample, value] of Object.entries(figures)) t.is(after.of(sample), value, sample);
  const between = (sample: string, least: number, most: number): void => {
    const value = after.of(sample) ?? NaN;
    t.true(value > least && value <= most, `${sample} ${value}`);
  };
  between('signet_x509_svid_soonest_expiry_seconds', 3_000, 3_600);
  between('signet_x509_svid_least_life_left_ratio', 0.9, 1);
  for (const kind of ['x509', 'jwt', 'root']) between(`signet_authority_life_left_ratio{kind="${kind}"}`, 0.9, 1);
  between('signet_authority_expiry_seconds{kind="x509"}', 80_000, 86_400);
  t.is(after.of('signet_attestations_total{outcome="process"}'), 1);
  // Without Kubernetes there are no pods to know, and without a path no audit log.
  for (const absent of ['signet_pod_index_pods', 'signet_rules', 'signet_audit_lines_total']) t.is(after.of(absent), undefined, absent);
  t.deepEqual(await readiness(), { status: 200, ready: true, degraded: false, reasons: [] });
});

test('the audit log tells who was given what, of a whole agent, and follows its file', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'audit.log');
  const { agent, client, read, stop } = await setUp(t, { audit: { path } });
  const one = client();
  await one.stream(`${API}FetchX509SVID`).next();
  const token = await one.unary<{ svids: { svid: string }[] }>(`${API}FetchJWTSVID`, { audience: ['x'] });
  await t.throwsAsync(one.unary(`${API}FetchJWTSVID`, { audience: ['x'], spiffe_id: 'spiffe://example.org/other' }));
  await until(async () => (await read()).of('signet_audit_lines_total') === 5, 'the lines are written');
  renameSync(path, `${path}.1`);
  agent.reopenAudit();
  await t.throwsAsync(one.unary(`${API}FetchJWTSVID`, { audience: [] }));
  await stop();
  const text = readFileSync(`${path}.1`, 'utf8');
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
  t.regex(readFileSync(path, 'utf8').split('\n')[0] ?? '', /"event":"refused".*"reason":"bad_request"/);
});

test('an agent that has stopped serves nothing and leaves its address free', async (t) => {
  const { address, stop } = await setUp(t);
  await stop();
  await t.throwsAsync(http(address, '/live'), { code: 'ECONNREFUSED' });
});

/** Waits, bounded, for what happens behind the answers. */
async function until(condition: () => Promise<boolean>, what: string): Promise<void> {
  for (let i = 0; i < 500; i += 1) if (await condition()) return;
  throw new Error(`it did not happen: ${what}`);
}
