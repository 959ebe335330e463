import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, mkdirSync, readFileSync, readlinkSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { Caller } from '../../src/attestation/caller.ts';
import { UnixAttestor, type UnixAttestorOptions } from '../../src/attestation/unix.ts';
import { SystemClock } from '../../src/clock.ts';
import { SignetError } from '../../src/errors.ts';
import { parseSelector } from '../../src/spiffe/selector.ts';
import { needsMountNamespace, testIf } from '../support/kernel-conditions.ts';
import { TestProcess, temporaryDirectory, until } from '../support/kernel-processes.ts';

const clock = new SystemClock();
const { signal } = new AbortController();

function callerWith(facts: Partial<Caller>): Caller {
  const { pid } = process;
  return { connection: 1, pid, uid: 7, gid: 8, groups: [], pidfd: -1, owner: 'uid:7', startTime: undefined, ...facts };
}

function attestorOf(t: ExecutionContext, options: Partial<UnixAttestorOptions> = {}): UnixAttestor {
  const directory = temporaryDirectory(t);
  writeFileSync(join(directory, 'passwd'), 'ann:x:7:8:::\n');
  writeFileSync(join(directory, 'group'), 'staff:x:8:\nwheel:x:10:ann\n');
  return new UnixAttestor({ clock, accountsDirectory: directory, ...options });
}

async function programSelectors(attestor: UnixAttestor, pid: number): Promise<string[]> {
  const selectors = await attestor.attest(callerWith({ pid }), signal);
  return selectors.filter((selector) => /^unix:(path|sha256):/.test(selector));
}

const sha256 = (path: string): string => `unix:sha256:${createHash('sha256').update(readFileSync(path)).digest('hex')}`;

test.serial('user and groups become selectors, with names where there are any', async (t) => {
  const attestor = attestorOf(t);
  const selectors = await attestor.attest(callerWith({ groups: [10, 8, 4_000_000_000] }), signal);
  t.deepEqual([...selectors].sort(), [
    'unix:gid:8',
    'unix:group:staff',
    'unix:supplementary_gid:10',
    'unix:supplementary_gid:4000000000',
    'unix:supplementary_gid:8',
    'unix:supplementary_group:staff',
    'unix:supplementary_group:wheel',
    'unix:uid:7',
    'unix:user:ann',
  ]);
  for (const selector of selectors) t.is(parseSelector(selector), selector);
});

test.serial('a user and a group without names get no selectors by name', async (t) => {
  t.deepEqual(await attestorOf(t).attest(callerWith({ uid: 77, gid: 88 }), signal), ['unix:uid:77', 'unix:gid:88']);
});

test.serial('user and groups come from the connection, not from the process', async (t) => {
  const selectors = await attestorOf(t).attest(callerWith({ pid: 1, uid: 7, gid: 8, groups: [] }), signal);
  t.deepEqual(selectors, ['unix:uid:7', 'unix:user:ann', 'unix:gid:8', 'unix:group:staff']);
});

test.serial('the program is told by path and hash only where that is wanted', async (t) => {
  const program = join(temporaryDirectory(t), 'program');
  copyFileSync('/bin/cat', program);
  const { pid } = new TestProcess(t, program, []);
  t.deepEqual(await programSelectors(attestorOf(t), pid), []);
  const selectors = await programSelectors(attestorOf(t, { path: true }), pid);
  t.deepEqual(selectors, [`unix:path:${program}`, sha256(program)]);
  for (const selector of selectors) t.is(parseSelector(selector), selector);
});

test.serial('a program that was deleted or replaced has its own hash and no path', async (t) => {
  const program = join(temporaryDirectory(t), 'program');
  copyFileSync('/bin/cat', program);
  const expected = sha256(program);
  const { pid } = new TestProcess(t, program, []);
  writeFileSync(`${program}.new`, 'another one');
  renameSync(`${program}.new`, program);
  const attestor = attestorOf(t, { path: true });
  t.deepEqual(await programSelectors(attestor, pid), [expected]);
  rmSync(program);
  t.deepEqual(await programSelectors(attestor, pid), [expected]);
});

test.serial('a path that is not UTF-8 is no selector', async (t) => {
  const directory = temporaryDirectory(t);
  const program = Buffer.concat([Buffer.from(`${directory}/a`), Buffer.from([0xff])]);
  copyFileSync('/bin/cat', program);
  const child = spawn('/bin/sh', ['-c', `exec "$(printf '${directory}/a\\377')"`], { stdio: ['pipe', 'ignore', 'inherit'] });
  t.teardown(() => child.kill('SIGKILL'));
  const pid = child.pid ?? t.fail() as never;
  await until(() => readlinkSync(`/proc/${pid}/exe`, 'buffer').equals(program), 'exec');
  t.deepEqual(await programSelectors(attestorOf(t, { path: true }), pid), [sha256('/bin/cat')]);
});

testIf(needsMountNamespace, 'the hash is that of the program run, not of the file at its path here', async (t) => {
  const directory = temporaryDirectory(t);
  const [program, claimed] = [join(directory, 'program'), join(directory, 'claimed')];
  copyFileSync('/bin/cat', program);
  writeFileSync(claimed, 'the trusted program');
  const script = 'mount --bind "$0" "$1" && exec "$1"';
  const { pid } = new TestProcess(t, 'unshare', ['--mount', 'sh', '-c', script, program, claimed]);
  await until(() => readlinkSync(`/proc/${pid}/exe`) === claimed, 'exec');
  t.deepEqual(await programSelectors(attestorOf(t, { path: true }), pid), [`unix:path:${claimed}`, sha256(program)]);
});

test.serial('a program above the limit has a path and no hash, and that is told', async (t) => {
  const program = join(temporaryDirectory(t), 'program');
  copyFileSync('/bin/cat', program);
  const { length } = readFileSync(program);
  const { pid } = new TestProcess(t, program, []);
  const told: number[] = [];
  const onUnhashed = (caller: Caller, size: number): void => void told.push(caller.pid, size);
  const exact = attestorOf(t, { path: true, longestHashedBytes: length });
  t.deepEqual(await programSelectors(exact, pid), [`unix:path:${program}`, sha256(program)]);
  const attestor = attestorOf(t, { path: true, longestHashedBytes: length - 1, onUnhashed });
  t.deepEqual(await programSelectors(attestor, pid), [`unix:path:${program}`]);
  t.deepEqual(told, [pid, length]);
});

test.serial('a process that has ended has no program', async (t) => {
  const child = new TestProcess(t, 'cat', []);
  await child.stop();
  const error = await t.throwsAsync(programSelectors(attestorOf(t, { path: true }), child.pid), { instanceOf: SignetError });
  t.is(error?.code, 'caller_gone');
});

test.serial('account files that cannot be read fail the attestation', async (t) => {
  const directory = temporaryDirectory(t);
  mkdirSync(join(directory, 'passwd'));
  const attestor = new UnixAttestor({ clock, accountsDirectory: directory });
  const error = await t.throwsAsync(attestor.attest(callerWith({}), signal), { instanceOf: SignetError });
  t.is(error?.code, 'unavailable');
});

test.serial('an aborted attestation ends with the reason of its signal', async (t) => {
  const reason = new Error('enough');
  t.is(await t.throwsAsync(attestorOf(t).attest(callerWith({}), AbortSignal.abort(reason))), reason);
  const controller = new AbortController();
  const running = attestorOf(t, { path: true }).attest(callerWith({}), controller.signal);
  controller.abort(reason);
  t.is(await t.throwsAsync(running), reason);
});
