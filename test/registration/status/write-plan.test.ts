import test from 'ava';
import { DEFAULT_WRITE_LIMITS, WritePlan } from '../../../src/registration/status/write-plan.ts';

/** Asks each second from `from` on until it is due; the second in which it is. */
function dueAt(plan: WritePlan, text: (second: number) => string, isLate: (second: number) => boolean = () => false, from = 0): number | undefined {
  for (let second = from; second < from + 4_000; second++) if (plan.isDue('rule', text(second), isLate(second), second * 1_000)) return second;
  return undefined;
}

const newPlan = (): WritePlan => new WritePlan(DEFAULT_WRITE_LIMITS);

test('what has stood still for ten seconds is due', (t) => {
  t.is(dueAt(newPlan(), () => 'a'), 10);
  t.is(dueAt(newPlan(), (second) => (second < 20 ? `${second}` : 'end')), 30);
});

test('what never stands still is due after ninety seconds', (t) => {
  t.is(dueAt(newPlan(), (second) => `${second}`), 90);
});

test('nodes that are late are waited for, but not for ever', (t) => {
  t.is(dueAt(newPlan(), () => 'a', (second) => second < 42), 42);
  t.is(dueAt(newPlan(), () => 'a', () => true), 90);
});

test('what became right in between starts anew', (t) => {
  const plan = newPlan();
  t.is(plan.isDue('rule', 'a', false, 0), false);
  t.is(plan.pending, 1);
  plan.isRight('rule');
  t.is(plan.pending, 0);
  t.is(dueAt(plan, () => 'a', undefined, 20), 30);
});

test('something else is due again after half a minute, the same ever later', (t) => {
  const plan = newPlan();
  t.is(plan.wrote('rule', 'a', 0), 1);
  t.is(dueAt(plan, () => 'b', undefined, 1), 30);
  t.is(plan.wrote('rule', 'b', 30_000), 1);
  const waits: number[] = [];
  for (let at = 30, times = 2; times < 12; times++) {
    const next = dueAt(plan, () => 'b', undefined, at + 1) ?? 0;
    waits.push(next - at);
    at = next;
    t.is(plan.wrote('rule', 'b', at * 1_000), times);
  }
  t.deepEqual(waits, [30, 60, 120, 240, 480, 960, 1_800, 1_800, 1_800, 1_800]);
});

test('rules that are gone are forgotten', (t) => {
  const plan = newPlan();
  plan.wrote('rule', 'a', 0);
  plan.isDue('rule', 'a', false, 0);
  plan.retain(new Set(['other']));
  t.is(plan.pending, 0);
  t.is(plan.wrote('rule', 'a', 1_000), 1);
});
