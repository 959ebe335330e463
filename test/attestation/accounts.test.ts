import { renameSync, rmSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { AccountNames, parseGroup, parsePasswd } from '../../src/attestation/accounts.ts';
import { SignetError } from '../../src/errors.ts';
import { SeededRandom } from '../support/kernel-random.ts';
import { temporaryDirectory } from '../support/kernel-processes.ts';

const ROUNDS = 3_000;

test('passwd and group give names by ID, the first of several', (t) => {
  const passwd = 'root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:\nbuild-1:x:4294967294:5:A: B:/:/bin/sh\nann:x:7:5:::\n';
  t.deepEqual([...parsePasswd(passwd)], [[0, 'root'], [7, 'ann']]);
  t.deepEqual([...parseGroup('root:x:0:\nstaff:x:50:ann,bob\n')], [[0, 'root'], [50, 'staff']]);
  t.deepEqual([...parseGroup('staff:x:50:ann')], [[50, 'staff']]);
});

test('lines of any other form are left out', (t) => {
  const lines = ['', '#a:x:1:1:::', '+a:x:1:1:::', '-a:x:1:1:::', '+::::::', ':x:1:1:::'];
  const names = ['a b:x:1:1:::', 'a\u0000:x:1:1:::', 'a\ufffd:x:1:1:::'];
  const fields = ['a:x:1:1::', 'a:x:1:1::::', 'a:x:4294967295:1:::', 'a:x:99999999999:1:::'];
  const ids = ['a:x:-1:1:::', 'a:x:1x:1:::', 'a:x::1:::'];
  for (const line of [...lines, ...names, ...ids, ...fields]) t.is(parsePasswd(line).size, 0, line);
});

test('generated files give the first name of each ID; mutated ones never an unusable name', (t) => {
  const random = new SeededRandom((line) => t.log(line));
  for (let i = 0; i < ROUNDS; i++) {
    const expected = new Map<number, string>();
    const lines = Array.from({ length: 1 + random.below(8) }, () => {
      const [name, id] = [random.text('abcxyz019_.$', 1 + random.below(8)), random.below(random.pick([4, 70_000, 2 ** 32 - 1]))];
      if (!expected.has(id)) expected.set(id, name);
      return `${name}:x:${id}:${random.below(9)}:${random.text('A b,', 3)}:/home:/bin/sh`;
    });
    const text = lines.join('\n');
    if (JSON.stringify([...parsePasswd(text)]) !== JSON.stringify([...expected])) return t.fail(`seed ${random.seed}: ${text}`);
    const mutated = random.mutate(text);
    for (const [id, name] of [...parsePasswd(mutated), ...parseGroup(mutated)]) {
      const usable = Number.isInteger(id) && id >= 0 && id < 0xffff_ffff && /^[^:\s]+$/.test(name);
      if (!usable) return t.fail(`seed ${random.seed}: ${JSON.stringify(mutated)}`);
    }
  }
  return t.pass();
});

test('files are read again when they have been replaced or rewritten, and missing ones have no names', async (t) => {
  const directory = temporaryDirectory(t);
  const accounts = new AccountNames(directory);
  t.is((await accounts.users()).size, 0);
  writeFileSync(join(directory, 'passwd'), 'ann:x:7:7:::\n');
  t.is((await accounts.users()).get(7), 'ann');
  t.is(await accounts.users(), await accounts.users());
  writeFileSync(join(directory, 'new'), 'bob:x:7:7:::\n');
  renameSync(join(directory, 'new'), join(directory, 'passwd'));
  t.is((await accounts.users()).get(7), 'bob');
  writeFileSync(join(directory, 'passwd'), 'claire:x:7:7:::\n');
  t.is((await accounts.users()).get(7), 'claire');
  rmSync(join(directory, 'passwd'));
  t.is((await accounts.users()).size, 0);
  t.is((await accounts.groups()).size, 0);
});

test('a file that is there and cannot be read is an error, each time', async (t) => {
  const directory = temporaryDirectory(t);
  mkdirSync(join(directory, 'group'));
  const accounts = new AccountNames(directory);
  for (let i = 0; i < 2; i++) t.is((await t.throwsAsync(accounts.groups(), { instanceOf: SignetError }))?.code, 'unavailable');
});
