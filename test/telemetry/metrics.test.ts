import test, { type ExecutionContext } from 'ava';
import { REFUSAL_REASONS } from '../../src/events.ts';
import type { MetricSources } from '../../src/telemetry/sources.ts';
import type { FakeClock } from '../support/fake-clock.ts';
import { observe, type Observed } from './observed.ts';
import { scrape } from './scrape.ts';

async function setUp(t: ExecutionContext, change?: (sources: MetricSources, clock: FakeClock) => Partial<MetricSources>) {
  const observed: Observed = await observe(change);
  t.teardown(() => observed.telemetry.close());
  return { ...observed, read: () => scrape(observed.address) };
}

const spiffeId = 'spiffe://example.org/a';

test('issuance is counted by kind and step, with how long it took', async (t) => {
  const { events, read } = await setUp(t);
  t.is((await read()).of('signet_svids_issued_total{kind="x509",step="first"}'), 0);
  events.publish('issued', { kind: 'x509', spiffeId, notAfter: 0, renewal: false, durationMs: 2 });
  events.publish('issued', { kind: 'x509', spiffeId, notAfter: 0, renewal: true, durationMs: 20 });
  events.publish('issued', { kind: 'jwt', spiffeId, notAfter: 0, renewal: false, durationMs: 0.7 });
  events.publish('issuanceFailed', { kind: 'jwt', spiffeId, error: 'away', retryMs: 500 });
  const after = await read();
  t.is(after.of('signet_svids_issued_total{kind="x509",step="first"}'), 1);
  t.is(after.of('signet_svids_issued_total{kind="x509",step="renewal"}'), 1);
  t.is(after.of('signet_svids_issued_total{kind="jwt",step="first"}'), 1);
  t.is(after.of('signet_svid_issuance_failures_total{kind="jwt"}'), 1);
  t.is(after.of('signet_svid_issuance_failures_total{kind="x509"}'), 0);
  t.is(after.of('signet_svid_signing_duration_seconds_bucket{le="0.0025",kind="x509"}'), 1);
  t.is(after.of('signet_svid_signing_duration_seconds_count{kind="x509"}'), 2);
  t.is(after.of('signet_svid_signing_duration_seconds_sum{kind="x509"}'), 0.022);
});

test('every reason for a refusal has a counter from the start', async (t) => {
  const { events, read } = await setUp(t);
  const before = await read();
  for (const reason of REFUSAL_REASONS) t.is(before.of(`signet_refusals_total{reason="${reason}"}`), 0, reason);
  for (const reason of REFUSAL_REASONS) events.publish('refused', { reason, uid: 1, pid: 1, detail: 'x', spiffeId });
  const after = await read();
  for (const reason of REFUSAL_REASONS) t.is(after.of(`signet_refusals_total{reason="${reason}"}`), 1, reason);
});

test('callers are counted as they come, are recognised, and get their first SVID', async (t) => {
  const { events, read } = await setUp(t);
  const who = { uid: 1000, pid: 7, podUid: 'abc' };
  events.publish('connected', who);
  events.publish('attested', { outcome: 'pod', durationMs: 300, ...who });
  events.publish('attested', { outcome: 'process', durationMs: 3, ...who });
  events.publish('attested', { outcome: 'refused', durationMs: 5_500, ...who });
  events.publish('firstSvid', { kind: 'x509', durationMs: 40 });
  const after = await read();
  t.is(after.of('signet_connections_accepted_total'), 1);
  for (const outcome of ['pod', 'process', 'refused']) t.is(after.of(`signet_attestations_total{outcome="${outcome}"}`), 1);
  t.is(after.of('signet_attestation_duration_seconds_bucket{le="0.25",outcome="pod"}'), 0);
  t.is(after.of('signet_attestation_duration_seconds_bucket{le="0.5",outcome="pod"}'), 1);
  t.is(after.of('signet_first_svid_duration_seconds_bucket{le="0.05",kind="x509"}'), 1);
  t.is(after.of('signet_first_svid_duration_seconds_count{kind="jwt"}'), 0);
});

test('tokens that were there and tokens that had to be made are told apart', async (t) => {
  const { events, read } = await setUp(t);
  for (let i = 0; i < 3; i += 1) events.publish('jwtAnswered', { hit: true });
  events.publish('jwtAnswered', { hit: false });
  const after = await read();
  t.is(after.of('signet_jwt_cache_requests_total{result="hit"}'), 3);
  t.is(after.of('signet_jwt_cache_requests_total{result="miss"}'), 1);
});

test('authorities are counted as they rotate or fail to', async (t) => {
  const { events, read } = await setUp(t);
  events.publish('authorityRotated', { kind: 'x509', step: 'activated', id: 'a', notAfter: 0 });
  events.publish('authorityFailed', { error: 'disk full', retryMs: 1 });
  const after = await read();
  t.is(after.of('signet_authority_rotations_total{kind="x509",step="activated"}'), 1);
  t.is(after.of('signet_authority_rotations_total{kind="jwt",step="retired"}'), 0);
  t.is(after.of('signet_authority_failures_total'), 1);
});

test('an upstream has the age of its last answer, and its failures', async (t) => {
  const { events, clock, read } = await setUp(t);
  t.is((await read()).of('signet_upstream_last_success_age_seconds{upstream="files"}'), undefined);
  events.publish('upstreamAnswered', { upstream: 'files', durationMs: 12 });
  clock.advance(90_000);
  events.publish('upstreamFailed', { upstream: 'files', error: 'no such file', retryMs: 1 });
  // A step of the wall clock makes no answer older.
  clock.step(3_600_000);
  const after = await read();
  t.is(after.of('signet_upstream_last_success_age_seconds{upstream="files"}'), 90);
  t.is(after.of('signet_upstream_failures_total{upstream="files"}'), 1);
  t.is(after.of('signet_upstream_request_duration_seconds_count{upstream="files"}'), 1);
});

test('upstreams without end do not make labels without end', async (t) => {
  const { events, read } = await setUp(t);
  for (let i = 0; i < 1_000; i += 1) events.publish('upstreamFailed', { upstream: `u${i}`, error: 'x', retryMs: 1 });
  const after = await read();
  t.is(after.text.match(/^signet_upstream_failures_total\{/gm)?.length, 9);
  t.is(after.of('signet_upstream_failures_total{upstream="other"}'), 992);
});

test('of the SVIDs in use the one that ends first counts, by time and by part of its life', async (t) => {
  const HOUR = 3_600_000;
  const { clock, read } = await setUp(t, (_, time) => {
    const issuedAt = time.now();
    const lives = [
      { issuedAt, notAfter: issuedAt + HOUR },
      { issuedAt: issuedAt - 90 * HOUR, notAfter: issuedAt + 10 * HOUR },
    ];
    return { identities: () => ({ x509: 2, jwt: 0, lives }) };
  });
  clock.advance(HOUR / 2);
  const half = await read();
  t.is(half.of('signet_x509_svid_soonest_expiry_seconds'), 1_800);
  t.is(half.of('signet_x509_svid_least_life_left_ratio'), 0.095);
  clock.advance(HOUR);
  const late = await read();
  t.is(late.of('signet_x509_svid_soonest_expiry_seconds'), -1_800);
  t.is(late.of('signet_x509_svid_least_life_left_ratio'), 0);
});

test('without an SVID in use none is said to end', async (t) => {
  const { read } = await setUp(t);
  const after = await read();
  t.is(after.of('signet_x509_svid_soonest_expiry_seconds'), undefined);
  t.is(after.of('signet_identities{kind="x509"}'), 3);
});

test('the rooms are read at each scrape', async (t) => {
  const { clock, read } = await setUp(t);
  const first = await read();
  t.is(first.of('signet_authority_expiry_seconds{kind="x509"}'), 500);
  t.is(first.of('signet_authority_life_left_ratio{kind="root"}'), 0.5);
  const figures: Readonly<Record<string, number>> = {
    'signet_identities{kind="jwt"}': 5,
    signet_connections: 11,
    signet_calls: 7,
    signet_streams: 6,
    signet_owners: 2,
    'signet_bundle_authorities{kind="x509"}': 2,
    'signet_bundle_authorities{kind="jwt"}': 4,
    signet_entries: 8,
    signet_pod_index_pods: 9,
    signet_pod_index_unlisted_pods: 1,
    signet_pod_index_synced: 1,
    signet_pod_index_last_contact_age_seconds: 30,
    signet_pod_index_conflicts_total: 2,
    signet_pod_index_oversized_pods: 3,
    signet_rules: 10,
    signet_rules_refused: 1,
    signet_audit_lines_total: 12,
    signet_audit_dropped_lines_total: 13,
    signet_audit_failures_total: 14,
    process_max_fds: 1_024,
    [`signet_build_info{version="1.2.3",node="${process.versions.node}"}`]: 1,
  };
  for (const [sample, value] of Object.entries(figures)) t.is(first.of(sample), value, sample);
  clock.advance(1_000);
  t.is((await read()).of('signet_pod_index_last_contact_age_seconds'), 30, 'it is read anew');
});

test('a room that is not there shows nothing, and one that fails hides no other', async (t) => {
  const { read } = await setUp(t, () => ({
    pods: () => undefined,
    rules: () => undefined,
    audit: () => undefined,
    authorities: () => {
      throw new Error('there is no CA certificate that is valid now');
    },
  }));
  const after = await read();
  for (const absent of ['signet_pod_index_pods', 'signet_pod_index_conflicts_total', 'signet_rules', 'signet_audit_lines_total', 'signet_authority_expiry_seconds{kind="x509"}']) {
    t.is(after.of(absent), undefined, absent);
  }
  t.is(after.of('signet_entries'), 8);
});

test('the process is measured under the usual names', async (t) => {
  const { read } = await setUp(t);
  const after = await read();
  const of = (name: string): number => after.of(name) ?? NaN;
  t.true(of('process_cpu_seconds_total') > 0);
  t.true(of('process_resident_memory_bytes') > 10_000_000);
  t.true(of('process_open_fds') > 3);
  t.true(of('nodejs_heap_size_used_bytes') > 1_000_000);
  t.true(of('nodejs_eventloop_lag_seconds') >= 0);
  t.true(of('nodejs_eventloop_active_seconds_total') > 0);
});

test('two agents in one process count apart', async (t) => {
  const one = await setUp(t);
  const other = await setUp(t);
  one.events.publish('connected', { uid: 1, pid: 1 });
  t.is((await one.read()).of('signet_connections_accepted_total'), 1);
  t.is((await other.read()).of('signet_connections_accepted_total'), 0);
});

test('after its end nothing is counted any more', async (t) => {
  const { events, telemetry } = await observe();
  telemetry.close();
  t.false(events.isHeard('refused'));
  t.false(events.isHeard('jwtAnswered'));
});
