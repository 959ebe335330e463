import { spawn } from 'node:child_process';
import { chmodSync, copyFileSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import type { RefusalReason } from '../../src/events.ts';
import { startTestAgent, type TestAgent } from '../support/agent.ts';
import { needsRoot, needsSetuid, testIf } from '../support/kernel-conditions.ts';
import { startScript, supportFile, temporaryDirectory, TestProcess, until } from '../support/kernel-processes.ts';
import { x509Request } from '../support/workload-request.ts';

/** Each refusal is counted, and written to the log in one line. */
function isRefusedOnce(agent: TestAgent, reason: RefusalReason): boolean {
  const lines = agent.lines.filter((line) => line.event === 'refused' && line.reason === reason);
  return agent.agent.counters.refused(reason) === 1 && lines.length === 1;
}

test('WE-19: a stream ends when the process that opened it is gone, even if its socket lives on in a child', async (t) => {
  const agent = await startTestAgent();
  t.teardown(agent.stop);
  const opener = startScript(t, 'hand-over-stream.ts', agent.socketPath);
  t.is(await opener.line(), 'message');
  t.is(agent.agent.taken.calls, 1);
  const heir = Number(await opener.ask('leave'));
  await opener.exited;
  t.notThrows(() => process.kill(heir, 0), 'the heir holds the socket');
  await until(() => agent.agent.taken.connections === 0, 'the connection is closed');
  t.true(isRefusedOnce(agent, 'caller_gone'));
  // The heir reads to the end of the socket and ends: nothing holds it open.
  await until(() => !isAlive(heir), 'the heir has read the end');
});

test('a caller that ends in the usual way is no refusal', async (t) => {
  const agent = await startTestAgent();
  t.teardown(agent.stop);
  const clients = Array.from({ length: 5 }, () => startScript(t, 'workload-client.ts', agent.socketPath));
  for (const client of clients) t.regex(await client.line(), /serial/);
  for (const client of clients) client.child.kill('SIGKILL');
  await until(() => agent.agent.taken.connections === 0, 'all connections are closed');
  t.is(agent.agent.counters.refused('caller_gone'), 0);
  t.is(agent.agent.taken.calls, 0);
});

testIf(needsSetuid, 'WE-19: a caller that has become a set-user-ID program before it is attested is refused, counted and logged once', async (t) => {
  const directory = temporaryDirectory(t);
  const agent = await startTestAgent({ config: { entries: [{ id: 'spiffe://example.org/nobody', selectors: ['unix:uid:65534'] }] } });
  t.teardown(agent.stop);
  chmodSync(agent.directory, 0o755);
  const program = join(directory, 'cat');
  copyFileSync('/bin/cat', program);
  chmodSync(program, 0o4755);
  const opener = startScript(t, 'hand-over-stream.ts', agent.socketPath, '65534', 'later');
  t.is(await opener.line(), 'connected');
  opener.tell(`exec ${program}`);
  await until(() => readFileSync(`/proc/${opener.pid}/comm`, 'latin1') === 'cat\n', 'exec');
  opener.child.stdin?.write(x509Request());
  await until(() => isRefusedOnce(agent, 'caller_changed'), 'the refusal');
  t.is(agent.agent.counters.issued('x509'), 0);
});

testIf(needsRoot, 'WE-19: a socket that was passed to another user is its opener\'s, and ends with it', async (t) => {
  const agent = await startTestAgent();
  t.teardown(agent.stop);
  const opener = startScript(t, 'hand-over-stream.ts', agent.socketPath);
  t.is(await opener.line(), 'message');
  const heir = Number(await opener.ask('leave 65533'));
  await opener.exited;
  await until(() => agent.agent.taken.connections === 0, 'the connection is closed');
  t.true(isRefusedOnce(agent, 'caller_gone'));
  t.true(agent.lines.some((line) => line.event === 'refused' && line.uid === 0), 'the refusal names the opener');
  await until(() => !isAlive(heir), 'the heir has read the end');
});

testIf(needsRoot, 'WE-25: a user without an entry gets no identity, and one with an entry the own one', async (t) => {
  const agent = await startTestAgent({ config: { entries: [{ id: 'spiffe://example.org/nobody', selectors: ['unix:uid:65534'] }] } });
  t.teardown(agent.stop);
  chmodSync(agent.directory, 0o755);
  const owner = startScript(t, 'workload-client.ts', agent.socketPath, 'stream', '65534');
  t.regex(await owner.line(), /serial/);
  const stranger = startScript(t, 'workload-client.ts', agent.socketPath, 'stream', '65533');
  t.deepEqual(JSON.parse(await stranger.line()), { code: 7, details: 'no identity issued' });
  t.true(isRefusedOnce(agent, 'no_identity'));
});

testIf(needsRoot, 'a caller from an unseen pid namespace has pid 0 and is refused, counted and logged once', async (t) => {
  // The agent in a pid namespace of its own cannot see the processes outside of it.
  const directory = temporaryDirectory(t);
  const agent = new TestProcess(t, 'unshare', ['--pid', '--fork', '--kill-child', process.execPath, supportFile('agent-in-namespace.ts'), directory]);
  t.is(await agent.line(), 'ready');
  const client = spawn(process.execPath, [supportFile('workload-client.ts'), join(directory, 'run', 'api.sock')], { stdio: 'ignore' });
  t.teardown(() => client.kill('SIGKILL'));
  t.deepEqual(JSON.parse(await agent.line()), { reason: 'pid_zero', counted: 1 });
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
