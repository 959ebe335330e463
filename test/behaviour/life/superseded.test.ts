import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { SystemClock } from '../../../src/clock.ts';
import { startTestAgent, type TestAgent } from '../../support/agent.ts';
import { until } from '../../support/kernel-processes.ts';
import { RawClient } from '../../support/raw-client.ts';
import { API, type Svids } from './timed-agent.ts';

/** The machine's clock, only faster: five seconds without an answer are over in some milliseconds. */
class HurriedClock extends SystemClock {
  override after(ms: number, run: () => void): ReturnType<SystemClock['after']> {
    return super.after(ms / 50, run);
  }
}

function directory(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), 'signet-superseded-'));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

async function start(t: ExecutionContext, path: string, onSuperseded: 'wait' | 'exit'): Promise<TestAgent> {
  const agent = await startTestAgent({ directory: path, clock: new HurriedClock(), config: { onSuperseded } });
  t.teardown(() => agent.stop());
  return agent;
}

async function isServed(agent: TestAgent): Promise<boolean> {
  const client = new RawClient(agent.socketPath);
  const stream = client.stream<Svids>(`${API}FetchX509SVID`);
  const { svids } = await stream.next();
  client.close();
  return svids.length === 1;
}

test('an agent that waits does not take the socket back, and ends when it is told to', async (t) => {
  const path = directory(t);
  const first = await start(t, path, 'wait');
  const second = await start(t, path, 'wait');
  await until(() => first.lines.some(({ event }) => event === 'agent.stopped'), 'the first lets go');
  t.true(first.agent.readiness.ready, 'else a rollout would delete its pod before the new one serves');
  t.deepEqual(first.agent.readiness.reasons().map(({ code }) => code), ['superseded']);
  t.true(await isServed(second));
  await first.agent.stop();
  t.is(await first.agent.stopped, 'stopped');
  t.true(await isServed(second));
});

test('an agent that waits for one that is gone ends as abandoned, so that its supervisor starts it again', async (t) => {
  const path = directory(t);
  const first = await start(t, path, 'wait');
  const second = await start(t, path, 'exit');
  await until(() => first.lines.some(({ event }) => event === 'agent.stopped'), 'the first lets go');
  // The clock's timers hold no process, and agents that have let go have nothing else.
  const hold = setInterval(() => undefined, 2 ** 30);
  t.teardown(() => clearInterval(hold));
  await second.agent.stop();
  t.is(await first.agent.stopped, 'abandoned');
  t.true(first.lines.some(({ event }) => event === 'agent.abandoned'));
});

test('without waiting an agent ends as soon as another one has the socket', async (t) => {
  const path = directory(t);
  const first = await start(t, path, 'exit');
  const second = await start(t, path, 'exit');
  t.is(await first.agent.stopped, 'stopped');
  t.true(await isServed(second));
});

for (const [what, spoil] of [
  ['in a directory that others may enter', (path: string) => chmodSync(join(path, 'private'), 0o755)],
  ['where a file is', (path: string) => {
    rmSync(join(path, 'private', 'admin.sock'));
    writeFileSync(join(path, 'private', 'admin.sock'), 'mine');
  }],
] as const) {
  test(`an agent whose operator's socket would be ${what} takes nothing from the one that runs`, async (t) => {
    const path = directory(t);
    const first = await start(t, path, 'exit');
    spoil(path);
    await t.throwsAsync(start(t, path, 'exit'), { message: /What to do/ });
    t.true(await isServed(first));
  });
}
