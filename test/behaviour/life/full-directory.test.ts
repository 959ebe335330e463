import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { startTestAgent } from '../../support/agent.ts';
import { needsMountNamespace, testIf } from '../../support/kernel-conditions.ts';
import { temporaryDirectory, until } from '../../support/kernel-processes.ts';
import { API, certificatesOf, firstOf, leafOf, MINUTE, nextOn, SECOND, startTimedAgent, TD, type Bundles, type Svids } from './timed-agent.ts';

const SHORT = { authority: { ttl: '60m' }, x509: { ttl: '20m' } };

/** A data directory on a file system of its own, of a few KiB, that ends with the test. */
function smallDirectory(t: ExecutionContext): { directory: string; data: string } {
  const directory = temporaryDirectory(t);
  const data = join(directory, 'data');
  mkdirSync(data);
  run('mount', '-t', 'tmpfs', '-o', 'size=64k,mode=0700', 'tmpfs', data);
  t.teardown(() => void spawnSync('umount', ['-l', data]));
  return { directory, data };
}

function run(command: string, ...args: string[]): void {
  const { status, stderr } = spawnSync(command, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
}

function fill(data: string): void {
  for (const size of [65_536, 4_096, 1]) {
    try {
      for (let count = 0; ; count += 1) writeFileSync(join(data, `filler-${size}-${count}`), Buffer.alloc(size));
    } catch {
      // Full for files of this size.
    }
  }
}

testIf(needsMountNamespace, 'on a directory that is read-only an agent with keys starts, with the trust bundle it had, and signs', async (t) => {
  const { directory, data } = smallDirectory(t);
  const first = await startTimedAgent(t, { directory });
  const before = (await firstOf<Bundles>(first.client, 'FetchX509Bundles')).bundles[TD]!;
  await first.stop();
  run('mount', '-o', 'remount,ro', data);
  const { client } = await startTimedAgent(t, { directory, clock: first.clock });
  const message = await firstOf<Svids>(client, 'FetchX509SVID');
  t.true(message.svids[0]!.bundle.equals(before));
  t.true(leafOf(message).verify(certificatesOf(before)[0]!.publicKey));
  await t.notThrowsAsync(client.unary(`${API}FetchJWTSVID`, { audience: ['x'] }));
});

testIf(needsMountNamespace, 'on a directory that is read-only or full an agent without keys does not start, says what to do, and leaves no socket', async (t) => {
  const { directory, data } = smallDirectory(t);
  run('mount', '-o', 'remount,ro', data);
  const refusal = { code: 'state_unwritable', message: /cannot be written. What to do: make .* writable for uid \d+, with free space/ };
  await t.throwsAsync(startTestAgent({ directory }), refusal);
  run('mount', '-o', 'remount,rw', data);
  fill(data);
  await t.throwsAsync(startTestAgent({ directory }), refusal);
  t.deepEqual(readdirSync(join(directory, 'run')), []);
  t.deepEqual(readdirSync(data).filter((name) => !name.startsWith('filler')), [], 'nothing half-written is left');
});

testIf(needsMountNamespace, 'FED-03: an agent that cannot write its next keys serves on with the old ones, and rotates when there is room again', async (t) => {
  const { directory, data } = smallDirectory(t);
  const { clock, agent, client } = await startTimedAgent(t, { directory, config: SHORT });
  const state = (): string => readFileSync(join(data, 'embedded-authority.json'), 'utf8');
  const [before, kept] = [(await firstOf<Svids>(client, 'FetchX509SVID')).svids[0]!.bundle, state()];
  const failures: string[] = [];
  agent.agent.events.on('authorityFailed', ({ error }) => void failures.push(error));
  fill(data);
  clock.advance(31 * MINUTE);
  await until(() => failures.length > 0, 'the rotation could not be written');
  clock.advance(14 * MINUTE);
  const during = await firstOf<Svids>(client, 'FetchX509SVID');
  t.true(leafOf(during).verify(certificatesOf(before)[0]!.publicKey), 'the old root signs, though the next one was due');
  t.is(certificatesOf(during.svids[0]!.bundle).length, 2, 'the next one is public already');
  t.is(state(), kept, 'the file is as it was');
  const { readiness } = agent.agent;
  t.deepEqual(readiness.reasons().map(({ code }) => code), ['authority_failing']);
  for (const name of readdirSync(data)) if (name.startsWith('filler')) rmSync(join(data, name));
  await until(() => (clock.advance(SECOND), state() !== kept), 'it is written');
  t.deepEqual(readdirSync(data), ['embedded-authority.json']);
  await until(() => readiness.reasons().length === 0, 'the recovery to be told');
  const [old] = certificatesOf(before);
  const stream = client.stream<Svids>(`${API}FetchX509SVID`);
  let leaf = leafOf(await stream.next());
  clock.advance(8 * MINUTE);
  while (leaf.verify(old!.publicKey)) leaf = leafOf(await nextOn(clock, stream));
  t.true(clock.now() < old!.validToDate.getTime(), 'the next root signs before the old one ends');
});

test('a data directory below one that is missing is made, for the agent alone', async (t) => {
  const directory = temporaryDirectory(t);
  const agent = await startTestAgent({ directory, config: { dataDir: join(directory, 'a', 'b', 'c') } });
  t.teardown(agent.stop);
  t.deepEqual(readdirSync(join(directory, 'a', 'b', 'c')), ['embedded-authority.json']);
});
