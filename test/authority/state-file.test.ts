import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { readPrivateFile, writePrivateFile } from '../../src/authority/state-file.ts';
import { needsRoot, testIf } from '../support/kernel-conditions.ts';
import { temporaryDirectory } from '../support/kernel-processes.ts';

test('what was written is read, with mode 0600 whatever the umask, and nothing is left aside', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'state');
  await writePrivateFile(path, 'one');
  await writePrivateFile(path, 'two');
  t.is(readPrivateFile(path), 'two');
  t.is(statSync(path).mode & 0o777, 0o600);
  t.deepEqual(readdirSync(directory), ['state']);
});

test('a file that is not there is no state', (t) => {
  t.is(readPrivateFile(join(temporaryDirectory(t), 'state')), undefined);
});

test('what an agent that was killed has left aside does not hinder', async (t) => {
  const path = join(temporaryDirectory(t), 'state');
  writeFileSync(`${path}.new`, 'half', { mode: 0o644 });
  await writePrivateFile(path, 'whole');
  t.is(readPrivateFile(path), 'whole');
  t.is(statSync(path).mode & 0o777, 0o600);
});

test('a link in the place where the new file is written aside is not followed', async (t) => {
  const directory = temporaryDirectory(t);
  const victim = join(directory, 'victim');
  writeFileSync(victim, 'untouched');
  symlinkSync(victim, join(directory, 'state.new'));
  await writePrivateFile(join(directory, 'state'), 'new');
  t.is(readFileSync(victim, 'utf8'), 'untouched');
});

test('two agents that write at the same time both succeed, and the file is always one of theirs', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'state');
  const texts = ['a', 'b'].map((who) => who.repeat(200_000));
  const write = async (text: string): Promise<void> => {
    for (let i = 0; i < 15; i += 1) {
      await writePrivateFile(path, text);
      t.true(texts.includes(readPrivateFile(path) ?? ''));
    }
  };
  await t.notThrowsAsync(Promise.all(texts.map(write)));
  t.deepEqual(readdirSync(directory), ['state']);
});

test('what killed agents have left aside is removed after a while, and nothing else', async (t) => {
  const directory = temporaryDirectory(t);
  const aside = (name: string, ageMs: number): string => {
    const path = join(directory, name);
    writeFileSync(path, 'half');
    const then = (statSync(path).mtimeMs - ageMs) / 1_000;
    utimesSync(path, then, then);
    return name;
  };
  aside('state.0123456789abcdef.new', 601_000);
  const kept = [aside('state.1123456789abcdef.new', 590_000), aside('state.backup.new', 700_000), aside('other.0123456789abcdef.new', 700_000)];
  await writePrivateFile(join(directory, 'state'), 'whole');
  t.deepEqual(readdirSync(directory).sort(), [...kept, 'state'].sort());
});

test('what cannot be written leaves the old file as it was', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'state');
  await writePrivateFile(path, 'old');
  mkdirSync(`${path}.new`);
  await t.throwsAsync(writePrivateFile(path, 'new'), { code: 'state_unwritable', message: /state cannot be written/ });
  t.is(readPrivateFile(path), 'old');
});

const REFUSED: readonly (readonly [what: string, make: (path: string) => void, message: RegExp])[] = [
  ['a directory', (path) => mkdirSync(path), /not a regular file.*What to do: move it away/],
  ['a FIFO', (path) => void spawnSync('mkfifo', ['-m', '600', path]), /not a regular file.*What to do/],
  ['a link', (path) => symlinkSync('/dev/null', path), /cannot be read.*What to do: .*not a link/],
  ['a link to nothing', (path) => symlinkSync('nowhere', path), /cannot be read.*What to do/],
  ['readable by the group', (path) => (writeFileSync(path, 'x'), chmodSync(path, 0o640)), /mode 640.*chmod 600/],
  ['writable by others', (path) => (writeFileSync(path, 'x'), chmodSync(path, 0o602)), /mode 602.*chmod 600/],
  ['far too large', (path) => (writeFileSync(path, '', { mode: 0o600 }), truncateSync(path, 4 * 1024 * 1024 + 1)), /4194305 bytes.*move it away/],
];

for (const [what, make, message] of REFUSED) {
  test(`a state file that is ${what} is refused with what to do`, (t) => {
    const path = join(temporaryDirectory(t), 'state');
    make(path);
    t.throws(() => readPrivateFile(path), { code: 'state_refused', message });
  });
}

testIf(needsRoot, 'a state file of another user is refused with both ways out', (t) => {
  const path = join(temporaryDirectory(t), 'state');
  writeFileSync(path, 'x', { mode: 0o600 });
  chownSync(path, 65_534, 65_534);
  t.throws(() => readPrivateFile(path), { code: 'state_refused', message: /belongs to uid 65534.*What to do: run the agent as that user, or `chown`/ });
});
