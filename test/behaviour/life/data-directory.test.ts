import { existsSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { Agent } from '../../../src/agent.ts';
import { openKernel } from '../../../src/kernel.ts';
import { systemRandom } from '../../../src/random.ts';
import { testConfig } from '../../support/agent.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { temporaryDirectory, until } from '../../support/kernel-processes.ts';
import { RawClient } from '../../support/raw-client.ts';
import { API, firstOf, startTimedAgent, whileMoving, type Svids } from './timed-agent.ts';

const SILENT = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };

test('WE-23: a second agent on the same directory waits for it, turns its callers away, and gives up saying what to do', async (t) => {
  const directory = temporaryDirectory(t);
  const { client } = await startTimedAgent(t, { directory });
  const clock = new FakeClock();
  const socketPath = join(directory, 'run', 'other.sock');
  const second = new Agent({ ...testConfig(directory), socketPath }, { clock, random: systemRandom, kernel: openKernel(), log: SILENT });
  const refused = t.throwsAsync(second.start(), { code: 'in_use', message: /is held by another agent.*stop it, or give this agent a dataDir of its own/ });
  await until(() => existsSync(socketPath), 'the second agent listens');
  const waiting = new RawClient(socketPath);
  t.teardown(() => waiting.close());
  const early = waiting.stream(`${API}FetchX509SVID`);
  await until(() => second.taken.calls === 1, 'a call has come');
  const ended = early.ended();
  await whileMoving(clock, () => refused, 100);
  t.is((await ended).code, 14);
  t.false(existsSync(socketPath), 'it leaves no socket');
  t.is((await firstOf<Svids>(client, 'FetchX509SVID')).svids.length, 1, 'the first agent goes on');
});
