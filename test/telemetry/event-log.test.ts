import test from 'ava';
import { EventBus } from '../../src/events.ts';
import type { Log, LogFields } from '../../src/log.ts';
import { Counters } from '../../src/telemetry/counters.ts';
import { logEvents } from '../../src/telemetry/event-log.ts';
import { FakeClock } from '../support/fake-clock.ts';

function setUp(): { events: EventBus; clock: FakeClock; lines: LogFields[]; counters: Counters } {
  const events = new EventBus();
  const clock = new FakeClock();
  const lines: LogFields[] = [];
  const write = (fields: LogFields): void => void lines.push(fields);
  const log: Log = { debug: write, info: write, warn: write, error: write };
  const counters = new Counters(events);
  logEvents(events, log, clock);
  return { events, clock, lines, counters };
}

test('a refusal is written once, and its repetitions are summed up', (t) => {
  const { events, clock, lines, counters } = setUp();
  for (let i = 0; i < 1_000; i += 1) events.publish('refused', { reason: 'call_rate', uid: 1000, pid: i });
  t.is(lines.length, 1);
  t.like(lines[0], { event: 'refused', reason: 'call_rate', uid: 1000, pid: 0 });
  clock.advance(10_000);
  t.is(lines.length, 2);
  t.like(lines[1], { event: 'refused', reason: 'call_rate', uid: 1000, count: 999 });
  t.is(counters.refused('call_rate'), 1_000);
});

test('a refusal that does not repeat is not summed up, and is written again later', (t) => {
  const { events, clock, lines } = setUp();
  events.publish('refused', { reason: 'no_identity', uid: 1 });
  clock.advance(20_000);
  t.is(lines.length, 1);
  events.publish('refused', { reason: 'no_identity', uid: 1 });
  t.is(lines.length, 2);
});

test('different reasons, methods and users are different refusals', (t) => {
  const { events, lines } = setUp();
  events.publish('refused', { reason: 'no_identity', method: 'FetchX509SVID', uid: 1 });
  events.publish('refused', { reason: 'no_identity', method: 'FetchJWTSVID', uid: 1 });
  events.publish('refused', { reason: 'no_identity', method: 'FetchJWTSVID', uid: 2 });
  events.publish('refused', { reason: 'missing_header', method: 'FetchJWTSVID', uid: 2 });
  t.is(lines.length, 4);
});

test('kinds of refusal without end are counted but not all written', (t) => {
  const { events, lines, counters } = setUp();
  for (let uid = 0; uid < 5_000; uid += 1) events.publish('refused', { reason: 'no_identity', uid });
  t.is(lines.length, 1_024);
  t.is(counters.refused('no_identity'), 5_000);
});

test('issuance, failures and rotations have a line each', (t) => {
  const { events, lines, counters } = setUp();
  const spiffeId = 'spiffe://example.org/a';
  events.publish('issued', { kind: 'x509', spiffeId, serial: '01', notAfter: 0, renewal: false, durationMs: 1 });
  events.publish('issued', { kind: 'x509', spiffeId, serial: '02', notAfter: 0, renewal: true, durationMs: 1 });
  events.publish('issuanceFailed', { kind: 'jwt', spiffeId, error: 'away', retryMs: 500 });
  events.publish('authorityRotated', { kind: 'jwt', step: 'prepared', id: 'k1', notAfter: 0 });
  events.publish('authorityFailed', { error: 'disk full', retryMs: 1000 });
  t.deepEqual(
    lines.map((line) => line.event),
    ['x509_svid.issued', 'x509_svid.renewed', 'jwt_svid.failed', 'jwt_authority.prepared', 'authority.failed'],
  );
  t.is(counters.issued('x509'), 2);
  t.is(counters.failed('jwt'), 1);
});

test('an upstream that fails, a rule that does not count and a conflict have a line each', (t) => {
  const { events, clock, lines } = setUp();
  events.publish('upstreamFailed', { upstream: 'files', error: 'no such file', retryMs: 1_000.4 });
  events.publish('ruleRefused', { kind: 'ClusterSPIFFEID', name: 'web', problem: 'spec.admin: not supported' });
  for (let i = 0; i < 5; i += 1) events.publish('podHashConflict', { hash: 'abc' });
  clock.advance(10_000);
  t.deepEqual(lines, [
    { event: 'upstream.failed', reason: 'files', err: 'no such file', duration_ms: 1_000 },
    { event: 'rule.refused', path: 'ClusterSPIFFEID/web', err: 'spec.admin: not supported' },
    { event: 'pod.conflict', reason: 'abc' },
    { event: 'pod.conflict', reason: 'abc', count: 4 },
  ]);
});
