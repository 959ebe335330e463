import test from 'ava';
import { figuresWith, result, sample, speedRow } from '../fixtures.ts';
import { measuresOf, middle, peersOf, ratio, type Measure } from './measures.ts';
import type { SpeedRow } from '../figures.ts';

function speed(...rows: SpeedRow[]): Measure | undefined {
  return measuresOf({ speed: result('speed', rows) })[0];
}

function ratioOf(...rows: SpeedRow[]): number | undefined {
  const measure = speed(...rows);
  return measure === undefined ? undefined : ratio(measure, 'Signet', 'SPIRE')?.value;
}

test('the ratio is the median of the rounds that ran side by side, not the ratio of the medians', (t) => {
  t.is(ratioOf(speedRow('Signet', 100, 400, 90), speedRow('SPIRE', 50, 100, 90)), 2);
});

test('a shorter time is a higher ratio', (t) => {
  const timed = (subject: string, p50: number): SpeedRow => (
    { ...speedRow(subject), primary: 'p50', samples: [sample({ latency_ms: { p50, p90: 9, p99: 9, max: 9 } })] }
  );
  t.is(ratioOf(timed('Signet', 2), timed('SPIRE', 3)), 1.5);
});

test('there is no ratio where an own round has errors, where no round is on both sides, or with nobody to compare with', (t) => {
  const bad: SpeedRow = { ...speedRow('SPIRE'), samples: [sample({ errors: { Unavailable: 1 } })] };
  t.is(ratioOf(speedRow('Signet', 100), bad), undefined);
  t.is(ratioOf({ ...bad, subject: 'Signet' }, speedRow('SPIRE', 100)), undefined);
  t.is(ratioOf(speedRow('Signet', 100)), undefined);
  t.is(ratioOf(speedRow('Signet'), speedRow('SPIRE')), undefined);
});

test('rounds that the peer did not answer are left out, and the others stay side by side', (t) => {
  const own = speedRow('Signet', 100, 400, 90);
  const hung = { ...speedRow('SPIRE'), samples: [sample({ errors: { no_answer: 4 } }), { ...sample({ per_second: 45 }), round: 2 }] };
  const measure = speed(own, hung);
  t.deepEqual(measure && ratio(measure, 'Signet', 'SPIRE'), { value: 2, rounds: 1, of: 3 });
});

test('every group but the minting gives measures, and loads by grpc-go come last', (t) => {
  const rows = [speedRow('Signet', 1), { ...speedRow('Signet', 2), what: 'JWT, as grpc-go sees it' }];
  const names = measuresOf(figuresWith({ speed: result('speed', rows) })).map(({ name }) => name);
  t.deepEqual(names, [
    'JWT', 'storm of 500 processes, again', 'restart under 500 streams: last is back', 'beside, p99', 'start to first X509-SVID, fresh state',
    'resident at rest', 'anonymous at rest', '10 streams: resident for each', '10 streams: all served', '20,000 rounds: peak resident',
    'renewal on 5 streams: first to last', 'JWT, as grpc-go sees it',
  ]);
});

test('the middle of rounds leaves out those that failed', (t) => {
  const measure = speed({ ...speedRow('Signet', 10, 30), samples: [sample({ per_second: 10 }), sample({ per_second: 30, errors: { x: 1 } })] });
  t.is(measure && middle(measure, 'Signet'), 10);
  t.is(measure && middle(measure, 'SPIRE'), undefined);
});

test('peers are whoever was measured beside Signet', (t) => {
  t.deepEqual(peersOf(figuresWith()), ['SPIRE']);
  t.deepEqual(peersOf({}), []);
});
