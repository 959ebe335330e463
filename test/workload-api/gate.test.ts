import test from 'ava';
import { Gate } from '../../src/workload-api/gate.ts';
import { FakeClock } from '../support/fake-clock.ts';

test('all who wait get the value when it comes, and those who come later at once', async (t) => {
  const clock = new FakeClock();
  const gate = new Gate<string>(clock);
  t.is(gate.value, undefined);
  const waiting = [gate.wait(10_000), gate.wait(20_000)];
  gate.open('ready');
  t.deepEqual(await Promise.all(waiting), ['ready', 'ready']);
  t.is(await gate.wait(0), 'ready');
  t.is(gate.value, 'ready');
  t.is(clock.pending, 0, 'nobody waits any more');
});

test('WE-23: who has waited long enough gets nothing, and the others wait on', async (t) => {
  const clock = new FakeClock();
  const gate = new Gate<string>(clock);
  const [short, long] = [gate.wait(1_000), gate.wait(5_000)];
  clock.advance(1_000);
  t.is(await short, undefined);
  gate.open('ready');
  t.is(await long, 'ready');
});
