import test from 'ava';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { watchSuccessor } from '../../src/listener/successor.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { temporaryDirectory, until } from '../support/kernel-processes.ts';

test('a successor that answers is left alone, and one that is gone is told once', async (t) => {
  const path = join(temporaryDirectory(t), 'api.sock');
  let asked = 0;
  const server = createServer(() => (asked += 1));
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const clock = new FakeClock();
  let gone = 0;
  watchSuccessor(path, clock, () => (gone += 1));
  const look = async (): Promise<void> => {
    await until(() => clock.pending === 1, 'the next look');
    clock.advance(1_000);
  };
  for (let round = 1; round <= 3; round += 1) {
    await look();
    await until(() => asked === round, 'the question');
  }
  await new Promise((resolve) => server.close(resolve));
  for (let failures = 1; failures <= 5; failures += 1) {
    t.is(gone, 0, `after ${failures - 1} failures`);
    await look();
  }
  await until(() => gone === 1, 'the end');
  t.is(clock.pending, 0);
});

test('a watch that was stopped tells nothing any more', async (t) => {
  const clock = new FakeClock();
  const stop = watchSuccessor(join(temporaryDirectory(t), 'none.sock'), clock, () => t.fail('it was stopped'));
  stop();
  clock.advance(60_000);
  t.is(clock.pending, 0);
});
