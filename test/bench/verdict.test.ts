import test from 'ava';
import { CHURNED, figuresWith, result, ROTATED, sample, speedRow, STREAMED, usage } from './fixtures.ts';
import { faults } from './verdict.ts';
import type { RotateDetail } from './load-client.ts';

const plain = { subject: 'Signet', args: [], failures: [] };

test('a clean run has no faults', (t) => {
  t.deepEqual(faults(figuresWith(), 'Signet'), []);
});

test('calls that failed are a fault', (t) => {
  const row = { ...speedRow('Signet'), samples: [sample({ errors: { Unavailable: 2 }, error_example: 'gone' })] };
  t.deepEqual(faults(figuresWith({ speed: result('speed', [row]) }), 'Signet'), ['JWT: 2 times Unavailable (gone)']);
  t.deepEqual(faults(figuresWith({ speed: result('speed', [{ ...row, subject: 'SPIRE' }]) }), 'Signet'), []);
});

test('a storm that lost callers is a fault', (t) => {
  const detail = { last_ms: [1, 2], served: [5, 3], lost_in: 2 };
  const storms = result('storms', [{ ...plain, what: '9 storms', samples: [sample({ detail })] }]);
  t.deepEqual(faults(figuresWith({ storms }), 'Signet'), ['9 storms: callers were lost in storm 2']);
});

test('descriptors that stay after the close are a fault', (t) => {
  const detail = { ...STREAMED, closed: [usage(4000, 13)] };
  const memory = result('memory', [{ ...plain, what: '10 streams', streams: 10, samples: [sample({ detail })] }]);
  t.deepEqual(faults(figuresWith({ memory }), 'Signet'), ['10 streams: 10 descriptors before, 13 after all had closed']);
});

test('memory that rises with each connection is a fault, but not in a quick run', (t) => {
  const samples = CHURNED.samples.map((s) => ({ ...s, ...usage(2048 + s.rounds, 12) }));
  const rows = [{ ...plain, what: 'churn', samples: [sample({ detail: { samples } })] }];
  t.deepEqual(faults(figuresWith({ peaks: result('peaks', rows) }), 'Signet'), ['churn: 1000 KiB of memory for 1,000 connections stay']);
  t.deepEqual(faults(figuresWith({ peaks: result('peaks', rows, { quick: true }) }), 'Signet'), []);
});

test('expired, broken, late and repeated renewals are faults, and so is none at all', (t) => {
  const wrong = { 'the key is not the certificate\'s': 1 };
  const detail: RotateDetail = { ...ROTATED, rotations: null, expired: 1, broken: 2, incomplete: 3, repeated: 4, wrong };
  const row = { what: 'R', subject: 'Signet', args: [], samples: [sample({ detail })], failures: ['R: it hung'] };
  t.deepEqual(faults(figuresWith({ rotation: result('rotation', [row]) }), 'Signet'), [
    'R: it hung',
    'R: 1 streams held an expired certificate',
    'R: 2 streams ended',
    'R: 3 renewals did not reach every stream',
    'R: 4 messages repeated the certificate before',
    'R: 1 times the key is not the certificate\'s',
    'R: no renewal was seen',
  ]);
});
