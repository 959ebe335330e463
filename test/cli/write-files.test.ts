import {
  lstat, mkdir, mkdtemp, readdir, readFile, readlink, realpath, rm, stat, symlink, utimes, writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { CommandError } from '../../src/cli/usage-error.ts';
import { writeSet, type NewFile } from '../../src/cli/write-files.ts';

function fileSet(mark: string, count = 1): NewFile[] {
  return Array.from({ length: count }, (_, index) => [
    { name: `svid.${index}.key`, text: `key ${mark}`, mode: 0o600 },
    { name: `svid.${index}.pem`, text: `certificate ${mark}`, mode: 0o644 },
    { name: `bundle.${index}.pem`, text: `bundle ${mark}`, mode: 0o644 },
  ]).flat();
}

async function temporary(t: { teardown(stop: () => Promise<void>): void }): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'signet-write-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

async function visible(directory: string): Promise<string[]> {
  return (await readdir(directory)).filter((name) => !name.startsWith('..')).sort();
}

/** Everything in the directory but files of other people: the swapped link, one generation and the plain names. */
async function entries(directory: string): Promise<number> {
  return (await readdir(directory)).length;
}

test('the plain names hold the files, keys only for their owner whatever the umask', async (t) => {
  const directory = join(await temporary(t), 'new', 'deep');
  await writeSet(directory, fileSet('1'), Date.now());
  t.deepEqual(await visible(directory), ['bundle.0.pem', 'svid.0.key', 'svid.0.pem']);
  t.is(await readFile(join(directory, 'svid.0.key'), 'utf8'), 'key 1');
  t.is((await stat(join(directory, 'svid.0.key'))).mode & 0o777, 0o600);
  t.is((await stat(join(directory, 'svid.0.pem'))).mode & 0o777, 0o644);
});

test('a later set replaces the whole earlier one and leaves nothing behind', async (t) => {
  const directory = await temporary(t);
  await writeSet(directory, fileSet('1', 3), Date.now());
  await writeFile(join(directory, 'notes.txt'), 'mine');
  await writeSet(directory, fileSet('2'), Date.now());
  t.deepEqual(await visible(directory), ['bundle.0.pem', 'notes.txt', 'svid.0.key', 'svid.0.pem']);
  t.is(await readFile(join(directory, 'svid.0.pem'), 'utf8'), 'certificate 2');
  t.is(await entries(directory), 4 + 2);
});

test('files of the same names that another program made are replaced, other ones of ours stay', async (t) => {
  const directory = await temporary(t);
  for (const name of ['svid.0.key', 'svid.0.pem', 'svid.7.pem']) await writeFile(join(directory, name), 'old');
  await symlink('svid.7.pem', join(directory, 'bundle.0.pem'));
  await writeSet(directory, fileSet('1'), Date.now());
  t.is(await readFile(join(directory, 'svid.0.key'), 'utf8'), 'key 1');
  t.is(await readFile(join(directory, 'bundle.0.pem'), 'utf8'), 'bundle 1');
  t.is(await readFile(join(directory, 'svid.7.pem'), 'utf8'), 'old');
});

test('an error leaves what was there, and no trace of the attempt', async (t) => {
  const directory = await temporary(t);
  await writeSet(directory, fileSet('1'), Date.now());
  const before = (await readdir(directory)).sort();
  // A name that cannot be created stands for a disk that fills up between two files.
  const broken = [...fileSet('2'), { name: 'x'.repeat(300), text: '', mode: 0o644 }];
  const error = await t.throwsAsync(writeSet(directory, broken, Date.now()), { instanceOf: CommandError });
  t.regex(error.message, /cannot write to/);
  t.deepEqual((await readdir(directory)).sort(), before);
  t.is(await readFile(join(directory, 'svid.0.key'), 'utf8'), 'key 1');
});

test('a directory in the place of a file is refused before anything is written', async (t) => {
  const directory = await temporary(t);
  await mkdir(join(directory, 'bundle.0.pem'));
  await t.throwsAsync(writeSet(directory, fileSet('1'), Date.now()), { instanceOf: CommandError, message: /is a directory/ });
  t.deepEqual(await readdir(directory), ['bundle.0.pem']);
});

test('a file in the place of the directory is refused', async (t) => {
  const path = join(await temporary(t), 'file');
  await writeFile(path, '');
  await t.throwsAsync(writeSet(path, fileSet('1'), Date.now()), { instanceOf: CommandError });
});

test('what a killed process left behind is removed once it is old', async (t) => {
  const directory = await temporary(t);
  const now = Date.now();
  for (const [name, age] of [['..generation-old', 7_200], ['..generation-new', 60]] as const) {
    await mkdir(join(directory, name));
    await utimes(join(directory, name), now / 1_000 - age, now / 1_000 - age);
  }
  await writeSet(directory, fileSet('1'), now);
  await t.throwsAsync(lstat(join(directory, '..generation-old')), { code: 'ENOENT' });
  await t.notThrowsAsync(lstat(join(directory, '..generation-new')));
});

test('a link that leads elsewhere is not followed when the old generation is removed', async (t) => {
  const directory = await temporary(t);
  const outside = await temporary(t);
  await writeFile(join(outside, 'kept'), '');
  await symlink(`..generation-x/../${join('..', outside.split('/').at(-1) ?? '')}`, join(directory, '..data'));
  await writeSet(directory, fileSet('1'), Date.now());
  t.deepEqual(await readdir(outside), ['kept']);
});

test('one rename exchanges all names: each leads through ..data into the same generation', async (t) => {
  const directory = await temporary(t);
  const generations = new Set<string>();
  for (let round = 1; round <= 5; round++) {
    await writeSet(directory, fileSet(String(round), 2), Date.now());
    const current = await realpath(join(directory, '..data'));
    generations.add(current);
    for (const { name, text } of fileSet(String(round), 2)) {
      t.is(await readlink(join(directory, name)), join('..data', name));
      t.is(await realpath(join(directory, name)), join(current, name));
      t.is(await readFile(join(directory, name), 'utf8'), text);
    }
    t.is(await entries(directory), 6 + 2);
  }
  t.is(generations.size, 5);
});
