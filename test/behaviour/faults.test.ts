import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { configText, OWN_ID, startTestAgent } from '../support/agent.ts';
import { startAgentProcess, type AgentProcess } from '../support/agent-process.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { WireClient } from '../support/http2-wire.ts';
import { testIf } from '../support/kernel-conditions.ts';
import { startScript, until } from '../support/kernel-processes.ts';
import { askForSvid, type Outcome } from '../support/workload-request.ts';

const CROWD = 1_200;
const backlog = Number(readFileSync('/proc/sys/net/core/somaxconn', 'utf8'));
const hasPrlimit = spawnSync('prlimit', ['--version']).status === 0;

interface Message {
  readonly serial: string;
  readonly notAfter: number;
}

test('a reader stopped with SIGSTOP while 20 rotations pass gets one current state when it goes on, never a queue', async (t) => {
  const clock = new FakeClock();
  const agent = await startTestAgent({ clock, config: { x509: { ttl: '60s' } } });
  t.teardown(async () => {
    const stopping = agent.stop();
    const turn = setInterval(() => clock.advance(100), 5);
    await stopping;
    clearInterval(turn);
  });
  let issued = 0;
  let newest = '';
  agent.agent.events.on('issued', ({ serial = '' }) => {
    issued += 1;
    newest = serial;
  });
  const reader = startScript(t, 'workload-client.ts', agent.socketPath);
  await reader.line();
  t.is(issued, 1);
  reader.child.kill('SIGSTOP');
  await until(() => readFileSync(`/proc/${reader.pid}/stat`, 'latin1').includes(') T '), 'the reader has stopped');
  const before = await bufferBytes();
  for (let rotation = 1; rotation <= 20; rotation += 1) {
    clock.advance(40_000);
    await until(() => issued === rotation + 1, `rotation ${rotation}`);
  }
  t.true((await bufferBytes()) - before < 4 * 1024 * 1024, 'buffers outside of the heap stay flat');
  reader.child.kill('SIGCONT');
  const turn = setInterval(() => clock.advance(20), 5);
  t.teardown(() => clearInterval(turn));
  const seen: string[] = [];
  while (seen.at(-1) !== newest) seen.push((JSON.parse(await reader.line()) as Message).serial);
  // The first is what was under way when it stopped: nobody can know that a process will not read any more.
  t.true(seen.length <= 2, `it got ${seen.length} states`);
});

testIf([backlog >= CROWD, `needs net.core.somaxconn of ${CROWD}, and it is ${backlog}`], `${CROWD} connects at once while the event loop is blocked are all served`, async (t) => {
  const agent = await startFor(t);
  agent.signal('SIGSTOP');
  const clients = await Promise.all(Array.from({ length: CROWD }, () => WireClient.connect(agent.socketPath)));
  t.teardown(() => clients.forEach((client) => client.destroy()));
  agent.signal('SIGCONT');
  t.deepEqual(tally(await Promise.all(clients.map(askForSvid))), { svid: CROWD });
});

testIf([hasPrlimit, 'needs prlimit'], 'at the descriptor limit callers are turned away, nothing breaks, and the next ones are served', async (t) => {
  const agent = await startFor(t, { wrapper: ['prlimit', '--nofile=160:160'] });
  const room = (160 - 64) / 2;
  const before = descriptorsOf(agent);
  const clients = await Promise.all(Array.from({ length: 200 }, () => WireClient.connect(agent.socketPath)));
  const outcomes = tally(await Promise.all(clients.map(askForSvid)));
  t.deepEqual(outcomes, { svid: room, closed: 200 - room });
  for (const client of clients) client.destroy();
  await until(() => descriptorsOf(agent) <= before, 'the descriptors are back');
  const [later] = await Promise.all([WireClient.connect(agent.socketPath)]);
  t.teardown(() => later.destroy());
  t.is(await askForSvid(later), 'svid');
  t.regex(agent.log(), /"reason":"too_many_connections"/);
  t.notRegex(agent.log(), /agent\.mistake/);
});

test('an agent killed with SIGKILL and started again under connected clients serves them on, with the same trust bundle', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'signet-kill-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const first = await startAgentProcess({ directory });
  const readers = [1, 2, 3].map(() => startScript(t, 'workload-client.ts', first.socketPath, 'loop'));
  const before = await Promise.all(readers.map(async (reader) => JSON.parse(await reader.line()) as Message));
  const state = readFileSync(join(directory, 'data', 'embedded-authority.json'), 'utf8');
  first.signal('SIGKILL');
  await first.exited;
  const second = await startAgentProcess({ directory });
  t.teardown(second.stop);
  for (const [index, reader] of readers.entries()) {
    let line = JSON.parse(await reader.line()) as Partial<Message>;
    while (line.serial === undefined) line = JSON.parse(await reader.line()) as Partial<Message>;
    t.not(line.serial, before[index]?.serial, 'a new SVID');
  }
  t.is(readFileSync(join(directory, 'data', 'embedded-authority.json'), 'utf8'), state);
});

test('a rolling restart under 50 connects a second sees no missing socket and no refused connection', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'signet-rolling-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const agents: AgentProcess[] = [await startAgentProcess({ directory })];
  t.teardown(async () => void (await Promise.all(agents.map((agent) => agent.stop()))));
  const { socketPath } = agents[0]!;
  const outcomes: Promise<Outcome>[] = [];
  const knock = setInterval(() => outcomes.push(visit(socketPath)), 20);
  t.teardown(() => clearInterval(knock));
  for (let restart = 0; restart < 3; restart += 1) {
    const enough = outcomes.length + 30;
    await until(() => outcomes.length >= enough, 'callers before the restart');
    const next = await startAgentProcess({ directory });
    t.is(await agents.at(-1)!.exited, 0, 'the one before has ended by itself');
    agents.push(next);
  }
  const enough = outcomes.length + 30;
  await until(() => outcomes.length >= enough, 'callers after the last restart');
  clearInterval(knock);
  const all = tally(await Promise.all(outcomes));
  t.log(all);
  t.deepEqual(Object.keys(all).filter((outcome) => outcome !== 'svid' && outcome !== 'status 14'), [], 'an SVID, or a status that clients retry');
  t.is(await visit(socketPath), 'svid');
});

test('WE-23: SIGTERM ends open streams with Unavailable and the process with 0, and leaves no socket', async (t) => {
  const agent = await startAgentProcess();
  t.teardown(agent.stop);
  const reader = startScript(t, 'workload-client.ts', agent.socketPath);
  await reader.line();
  agent.signal('SIGTERM');
  t.deepEqual(JSON.parse(await reader.line()), { code: 14, details: 'the agent is stopping' });
  t.is(await agent.exited, 0);
  t.deepEqual(readdirSync(join(agent.directory, 'run')), []);
});

test('SIGHUP reads the entries again; a file with faults keeps the old ones and says why', async (t) => {
  const agent = await startFor(t, { config: { withdrawalDelay: '0s' } });
  const reader = startScript(t, 'workload-client.ts', agent.socketPath);
  await reader.line();
  const entry = { id: OWN_ID, selectors: [`unix:uid:${process.geteuid?.()}`] };
  writeFileSync(agent.configPath, configText(agent.directory, { withdrawalDelay: '0s', entries: [{ ...entry, x509Tll: '1h' }] }));
  agent.signal('SIGHUP');
  await until(() => agent.log().includes('config.refused'), 'the faults are told');
  t.regex(agent.log(), /x509Tll/);
  writeFileSync(agent.configPath, configText(agent.directory, { withdrawalDelay: '0s', entries: [{ ...entry, dnsNames: ['web'] }] }));
  agent.signal('SIGHUP');
  t.truthy((JSON.parse(await reader.line()) as Message).serial, 'a new version of the entry is a new SVID');
  writeFileSync(agent.configPath, configText(agent.directory, { withdrawalDelay: '0s', entries: [] }));
  agent.signal('SIGHUP');
  t.deepEqual(JSON.parse(await reader.line()), { code: 7, details: 'no identity issued' });
});

test('a socket that somebody has removed is made again', async (t) => {
  const agent = await startFor(t);
  rmSync(agent.socketPath);
  await until(() => readdirSync(join(agent.directory, 'run')).includes('api.sock'), 'the socket is back');
  t.is(await visit(agent.socketPath), 'svid');
});

test('something else at the path of the socket is left alone, and the start fails saying so', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'signet-file-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  writeFileSync(join(directory, 'precious'), 'do not touch');
  await t.throwsAsync(startAgentProcess({ directory, config: { socketPath: join(directory, 'precious') } }), { message: /is not a socket/ });
  t.is(readFileSync(join(directory, 'precious'), 'utf8'), 'do not touch');
});

async function startFor(t: ExecutionContext, options: Parameters<typeof startAgentProcess>[0] = {}): Promise<AgentProcess> {
  const agent = await startAgentProcess(options);
  t.teardown(agent.stop);
  return agent;
}

async function visit(socketPath: string): Promise<Outcome> {
  const client = await WireClient.connect(socketPath);
  const outcome = await askForSvid(client);
  client.destroy();
  return outcome;
}

function tally(outcomes: readonly Outcome[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const outcome of outcomes) counts[outcome] = (counts[outcome] ?? 0) + 1;
  return counts;
}

function descriptorsOf(agent: AgentProcess): number {
  return readdirSync(`/proc/${agent.pid}/fd`).length;
}

/** Bytes that sockets and streams hold outside of the heap. */
async function bufferBytes(): Promise<number> {
  await new Promise((resolve) => setImmediate(resolve));
  return process.memoryUsage().arrayBuffers;
}
