import { readFileSync, writeFileSync } from 'node:fs';
import test from 'ava';
import { effectiveUidOf, startTimeOf } from '../../src/attestation/proc.ts';
import { SeededRandom } from '../support/kernel-random.ts';

const ROUNDS = 20_000;
const NASTY = ' ()):\t\\0123456789abcR';

test('the start time is field 22 whatever the command is called', (t) => {
  const name = readFileSync('/proc/self/comm', 'latin1').trimEnd();
  const plain = startTimeOf(readFileSync('/proc/self/stat', 'latin1'));
  t.regex(plain ?? '', /^[1-9][0-9]*$/);
  t.teardown(() => writeFileSync('/proc/self/comm', name));
  for (const comm of [') R 1 2 3', '((', ') ) )', '1 2 3 4 5', 'a\nb']) {
    writeFileSync('/proc/self/comm', comm);
    t.is(startTimeOf(readFileSync('/proc/self/stat', 'latin1')), plain, comm);
  }
});

test('the effective user is read whatever the command is called', (t) => {
  const name = readFileSync('/proc/self/comm', 'latin1').trimEnd();
  t.teardown(() => writeFileSync('/proc/self/comm', name));
  for (const comm of ['node', 'a\nUid:\t7\t7\t7\t7', 'Uid:\t7\t7\t7\t7']) {
    writeFileSync('/proc/self/comm', comm);
    const uid = effectiveUidOf(readFileSync('/proc/self/status', 'latin1'));
    t.is<number | undefined, number | undefined>(uid, process.geteuid?.(), comm);
  }
});

test('a stat line of any other form has no start time', (t) => {
  const fields = (count: number): string => Array.from({ length: count }, () => '5').join(' ');
  t.is(startTimeOf(`1 (a) ${fields(20)}`), '5');
  const short = ['', '1', '1 (a)', '1 (a) R', `1 (a) ${fields(19)}`];
  const wrong = [`1 (a)${fields(20)}`, `1 (a) ${fields(19)} -1`, `1 (a) ${fields(19)} x 4`];
  for (const text of [...short, ...wrong]) t.is(startTimeOf(text), undefined, text);
});

test('a status of any other form, or with two answers, has no effective user', (t) => {
  t.is(effectiveUidOf('Name:\ta\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\n'), 2);
  t.is(effectiveUidOf('Uid:\t1\t4294967295\t3\t4\n'), 4_294_967_295);
  const line = 'Uid:\t1\t2\t3\t4\n';
  const wrong = ['', 'Uid:', 'Uid:\t1\n', 'Uid:\t1\t2\t3\n', 'Uid: 1 2 3 4\n', 'Uid:\t1\t-2\t3\t4\n'];
  const twice = [`${line}${line}`, `${line}Uid: x\n`];
  for (const text of [...wrong, ...twice]) t.is(effectiveUidOf(text), undefined, text);
  t.is(effectiveUidOf('Uid:\t1\t4294967296\t3\t4\n'), undefined);
  t.is(effectiveUidOf(' Uid:\t1\t2\t3\t4\n'), undefined);
});

test('generated stat lines give their start time; mutated ones give digits or nothing', (t) => {
  const random = new SeededRandom((line) => t.log(line));
  for (let i = 0; i < ROUNDS; i++) {
    const start = String(random.below(2 ** 31));
    const rest = Array.from({ length: 30 }, () => String(random.below(1000) - 1));
    const command = `${random.below(32768)} (${random.text(NASTY, random.below(16))})`;
    const line = `${command} S ${rest.slice(0, 18).join(' ')} ${start} ${rest.join(' ')}\n`;
    if (startTimeOf(line) !== start) return t.fail(`seed ${random.seed}: ${JSON.stringify(line)}`);
    const mutated = random.mutate(line);
    if (!/^[0-9]{1,20}$/.test(startTimeOf(mutated) ?? '0')) return t.fail(`seed ${random.seed}: ${JSON.stringify(mutated)}`);
  }
  return t.pass();
});

test('generated statuses give their effective user; mutated ones give a user ID or nothing', (t) => {
  const random = new SeededRandom((line) => t.log(line));
  for (let i = 0; i < ROUNDS; i++) {
    const ids = Array.from({ length: 4 }, () => random.below(2 ** 32));
    const other = (): string => `${random.text('NamGroups', 4)}x:\t${random.text(NASTY, random.below(16))}\n`;
    const status = `${other()}${other()}Uid:\t${ids.join('\t')}\n${other()}`;
    if (effectiveUidOf(status) !== ids[1]) return t.fail(`seed ${random.seed}: ${JSON.stringify(status)}`);
    const mutated = random.mutate(status);
    const uid = effectiveUidOf(mutated) ?? 0;
    if (!Number.isInteger(uid) || uid < 0 || uid > 0xffff_ffff) return t.fail(`seed ${random.seed}: ${JSON.stringify(mutated)}`);
  }
  return t.pass();
});
