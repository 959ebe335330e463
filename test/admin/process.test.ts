import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { isStill, readProcess } from '../../src/admin/process.ts';
import { TestProcess } from '../support/kernel-processes.ts';

/** Fields 3 to 22 of stat, with the flags and the start time given. */
function stat(command: string, state: string, flags = 0, start = '77'): string {
  return `9 (${command}) ${state} 1 9 9 0 -1 ${flags} 0 0 0 0 0 0 0 0 20 0 1 0 ${start} 0 0\n`;
}

const STATUS = 'Name:\ta\nTgid:\t9\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t10 20 \n';

function proc(t: ExecutionContext, files: Readonly<Record<string, string>>): string {
  const root = mkdtempSync(join(tmpdir(), 'signet-proc-'));
  t.teardown(() => rmSync(root, { recursive: true, force: true }));
  mkdirSync(join(root, '9'));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(root, '9', name), text);
  return root;
}

test('effective IDs and supplementary groups are told, as the kernel tells them of a peer', (t) => {
  const { fact, startTime, process } = readProcess(9, proc(t, { stat: stat('web', 'S'), status: STATUS }));
  t.deepEqual(fact, { pid: 9, command: 'web', state: 'S', kernel_thread: false, uid: 2, gid: 6, groups: [10, 20] });
  t.deepEqual([startTime, process], ['77', 9]);
});

test('a thread of the kernel is told by its flag', (t) => {
  t.true(readProcess(9, proc(t, { stat: stat('kworker/0:1', 'I', 0x0420_8060), status: STATUS })).fact.kernel_thread);
});

test('a name with blanks, parentheses and line ends does not shift the fields', (t) => {
  const command = ') Z 1 (\nUid:\t0\t0\t0\t0\n) R';
  const status = STATUS.replace('Name:\ta', 'Name:\t) Z 1 (\\nUid:\\t0\\t0\\t0\\t0\\n) R');
  t.like(readProcess(9, proc(t, { stat: stat(command, 'S'), status })), {
    fact: { command, state: 'S', uid: 2 },
    startTime: '77',
  });
});

for (const [what, files] of [
  ['no stat', { status: STATUS }],
  ['no status', { stat: stat('a', 'S') }],
] as const) {
  test(`${what}: there is no such process`, (t) => {
    t.throws(() => readProcess(9, proc(t, files)), { message: /there is no process 9 here/ });
  });
}

for (const [what, files] of [
  ['an empty stat', { stat: '', status: STATUS }],
  ['a short stat', { stat: '9 (a) S 1', status: STATUS }],
  ['no Uid', { stat: stat('a', 'S'), status: STATUS.replace('Uid', 'Oid') }],
  ['a broken Gid', { stat: stat('a', 'S'), status: STATUS.replace('Gid:\t5\t6', 'Gid:\tx') }],
] as const) {
  test(`${what}: it is not of the form that is known`, (t) => {
    t.throws(() => readProcess(9, proc(t, files)), { message: '/proc/9 is not of the form that is known' });
  });
}

test('another process with the pid, or another user, is not the one that was read', async (t) => {
  const root = proc(t, { stat: stat('a', 'S'), status: STATUS });
  const before = readProcess(9, root);
  t.true(isStill(before, root));
  writeFileSync(join(root, '9', 'stat'), stat('a', 'S', 0, '78'));
  t.false(isStill(before, root));
  writeFileSync(join(root, '9', 'stat'), stat('a', 'S'));
  writeFileSync(join(root, '9', 'status'), STATUS.replace('\t2\t', '\t0\t'));
  t.false(isStill(before, root));
  const child = new TestProcess(t, process.execPath, ['-e', 'process.stdin.resume()']);
  const real = readProcess(child.pid);
  t.is(real.fact.uid, process.geteuid?.() ?? -1);
  await child.stop();
  t.false(isStill(real));
});
