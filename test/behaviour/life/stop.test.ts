import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { Agent } from '../../../src/agent.ts';
import { openKernel } from '../../../src/kernel.ts';
import type { LogFields } from '../../../src/log.ts';
import { systemRandom } from '../../../src/random.ts';
import { testConfig } from '../../support/agent.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { temporaryDirectory } from '../../support/kernel-processes.ts';
import { startTimedAgent, whileMoving } from './timed-agent.ts';

/** Turns of the event loop between the start and the stop: the start is then at one or the other of its steps. */
for (const turns of [0, 1, 2, 3, 5, 8, 13, 21, 34]) {
  test(`an agent that is stopped ${turns} turns after its start leaves no socket, holds no timer, and lets its directory go when it writes no more`, async (t) => {
    const directory = temporaryDirectory(t);
    const clock = new FakeClock();
    const said: string[] = [];
    const say = ({ event }: LogFields): void => void said.push(event);
    const agent = new Agent(testConfig(directory), { clock, random: systemRandom, kernel: openKernel(), log: { debug: say, info: say, warn: say, error: say } });
    const started = agent.start().catch(() => undefined);
    for (let turn = 0; turn < turns; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    await whileMoving(clock, () => agent.stop());
    const atTheEnd = said.length;
    await started;
    const run = join(directory, 'run');
    t.deepEqual(existsSync(run) ? readdirSync(run) : [], []);
    t.deepEqual(said.slice(atTheEnd), [], 'it says and does nothing after it has stopped');
    t.is(clock.pending, 0);
    const next = await startTimedAgent(t, { directory });
    t.true(next.agent.lines.some(({ event }) => event === 'agent.ready'));
  });
}
