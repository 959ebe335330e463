import test from 'ava';
import { EventBus } from '../../src/events.ts';
import { Readiness } from '../../src/telemetry/readiness.ts';
import type { PodFigures } from '../../src/telemetry/sources.ts';
import { FakeClock } from '../support/fake-clock.ts';

function setUp(pods: () => Partial<PodFigures> | undefined = () => undefined) {
  const events = new EventBus();
  const clock = new FakeClock();
  const figures = (): PodFigures | undefined => {
    const some = pods();
    return some === undefined ? undefined : { size: 0, unlisted: 0, synced: true, lastContact: undefined, conflicts: 0, oversized: 0, ...some };
  };
  const readiness = new Readiness({ events, clock, pods: figures });
  readiness.phase = 'serving';
  const codes = (): string[] => readiness.reasons().map(({ code }) => code);
  return { events, clock, readiness, codes };
}

test('an upstream is away from its failure to its next answer, and the agent stays ready', (t) => {
  const { events, readiness, codes } = setUp();
  events.publish('upstreamFailed', { upstream: 'files', error: 'x', retryMs: 1 });
  t.deepEqual(codes(), ['upstream_away']);
  t.true(readiness.ready);
  events.publish('upstreamAnswered', { upstream: 'files', durationMs: 1 });
  t.deepEqual(codes(), []);
});

test('a rotation that fails is told until one succeeds', (t) => {
  const { events, readiness, codes } = setUp();
  events.publish('authorityFailed', { error: 'disk full', retryMs: 1 });
  t.deepEqual(readiness.reasons(), [{ code: 'authority_failing', message: 'the signing keys could not be rotated', detail: 'disk full' }]);
  events.publish('authorityRotated', { kind: 'x509', step: 'prepared', id: 'a', notAfter: 0 });
  t.deepEqual(codes(), ['authority_failing'], 'a key that was made is not yet one that is kept');
  events.publish('authorityRecovered', {});
  t.deepEqual(codes(), []);
});

test('before the pods are known an agent of a cluster is not ready', (t) => {
  const { readiness, codes } = setUp(() => ({ synced: false, failure: 'connection refused' }));
  t.false(readiness.ready);
  t.deepEqual(codes(), ['pods_unknown', 'api_server_away']);
});

test('pods of which nothing was heard for three minutes are stale, and the agent stays ready', (t) => {
  const { clock, readiness, codes } = setUp(() => ({ lastContact: Date.UTC(2030, 0, 1) }));
  clock.advance(180_000);
  t.deepEqual(codes(), []);
  clock.advance(1_000);
  t.deepEqual(codes(), ['pods_stale']);
  t.true(readiness.ready);
});

test('an agent that does not serve says only why', (t) => {
  const { events, readiness, codes } = setUp(() => ({ synced: false }));
  events.publish('upstreamFailed', { upstream: 'files', error: 'x', retryMs: 1 });
  readiness.phase = 'stopping';
  t.deepEqual(codes(), ['stopping']);
  t.false(readiness.ready);
});

test('after its end nothing is followed any more', (t) => {
  const { events, readiness } = setUp();
  readiness.close();
  t.false(events.isHeard('upstreamFailed'));
});
