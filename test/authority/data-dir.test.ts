import { chmodSync, chownSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { DataDir } from '../../src/authority/data-dir.ts';
import { openKernel } from '../../src/kernel.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { needsRoot, testIf } from '../support/kernel-conditions.ts';
import { temporaryDirectory } from '../support/kernel-processes.ts';

const kernel = openKernel();
const { signal } = new AbortController();

test('a directory that is missing is made for the agent alone, with those above it for all', (t) => {
  const above = join(temporaryDirectory(t), 'a');
  DataDir.open(join(above, 'b'), kernel).close();
  t.is(statSync(join(above, 'b')).mode & 0o777, 0o700);
  t.is(statSync(above).mode & 0o755, 0o755 & ~process.umask());
});

test('one agent at a time holds a directory; it is free when the first lets go, and nothing is written for it', async (t) => {
  const path = temporaryDirectory(t);
  const clock = new FakeClock();
  const [first, second] = [DataDir.open(path, kernel), DataDir.open(path, kernel)];
  await first.lock(clock, 0, signal);
  await t.throwsAsync(second.lock(clock, 0, signal), { code: 'in_use', message: /held by another agent.*What to do: stop it/ });
  const waiting = second.lock(clock, 30_000, signal);
  clock.advance(10_000);
  first.close();
  clock.advance(20);
  await waiting;
  second.close();
  t.deepEqual(readdirSync(path), []);
});

test('waiting for a directory ends with the signal', async (t) => {
  const path = temporaryDirectory(t);
  const clock = new FakeClock();
  const [first, second] = [DataDir.open(path, kernel), DataDir.open(path, kernel)];
  await first.lock(clock, 0, signal);
  const stop = new AbortController();
  const waiting = second.lock(clock, 30_000, stop.signal);
  stop.abort(new Error('enough'));
  await t.throwsAsync(waiting, { message: 'enough' });
  t.is(clock.pending, 0);
  first.close();
  second.close();
});

for (const mode of [0o770, 0o702, 0o777]) {
  test(`a directory with mode ${mode.toString(8)} is refused, since others could put their keys there`, (t) => {
    const path = join(temporaryDirectory(t), 'data');
    mkdirSync(path);
    chmodSync(path, mode);
    t.throws(() => DataDir.open(path, kernel), { code: 'state_refused', message: /may be written by others.*What to do: chmod 700/ });
  });
}

test('what is no directory is refused with what to do', (t) => {
  const path = join(temporaryDirectory(t), 'data');
  writeFileSync(path, '');
  t.throws(() => DataDir.open(path, kernel), { code: 'state_refused', message: /cannot be used.*What to do: create it for uid/ });
});

testIf(needsRoot, 'a directory of another user is refused, since that user could replace what is in it', (t) => {
  const path = join(temporaryDirectory(t), 'data');
  mkdirSync(path, { mode: 0o700 });
  chownSync(path, 65_534, 65_534);
  t.throws(() => DataDir.open(path, kernel), { code: 'state_refused', message: /belongs to uid 65534.*What to do: chown 0 / });
});
