import { createHash } from 'node:crypto';
import { appendFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { FileHashes, identifyFile } from '../../src/attestation/executable.ts';
import type { Clock } from '../../src/clock.ts';
import { SystemClock } from '../../src/clock.ts';
import { SignetError } from '../../src/errors.ts';
import { temporaryDirectory } from '../support/kernel-processes.ts';

/** A clock on which every file of the tests is old. */
const later: Clock = Object.assign(new SystemClock(), { now: () => Date.now() + 3_600_000 });

const digestOf = (content: Buffer | string): string => createHash('sha256').update(content).digest('hex');

test('a file is hashed whole, whatever its size', async (t) => {
  const path = join(temporaryDirectory(t), 'file');
  const hashes = new FileHashes(later);
  for (const size of [0, 1, 1 << 20, (1 << 20) + 1, 3_500_000]) {
    const content = Buffer.alloc(size, `${size}`);
    writeFileSync(path, content);
    t.is(await hashes.hash(path, await identifyFile(path)), digestOf(content), String(size));
  }
});

test('a known content is not read again', async (t) => {
  const path = join(temporaryDirectory(t), 'file');
  writeFileSync(path, 'a');
  const identity = await identifyFile(path);
  const hashes = new FileHashes(later);
  await t.throwsAsync(hashes.hash('/nonexistent', identity), { code: 'ENOENT' });
  t.is(await hashes.hash(path, identity), digestOf('a'));
  t.is(await hashes.hash('/nonexistent', identity), digestOf('a'));
});

test('the hash of a file that changed a moment ago is not kept', async (t) => {
  const path = join(temporaryDirectory(t), 'file');
  writeFileSync(path, 'a');
  const identity = await identifyFile(path);
  const hashes = new FileHashes(Object.assign(new SystemClock(), { now: () => identity.changedMs + 500 }));
  t.is(await hashes.hash(path, identity), digestOf('a'));
  await t.throwsAsync(hashes.hash('/nonexistent', identity), { code: 'ENOENT' });
});

test('a file that is not the one identified is refused', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'file');
  writeFileSync(path, 'a');
  const identity = await identifyFile(path);
  const hashes = new FileHashes(later);
  appendFileSync(path, 'b');
  t.is((await t.throwsAsync(hashes.hash(path, identity), { instanceOf: SignetError }))?.code, 'caller_changed');
  const other = join(directory, 'other');
  writeFileSync(other, 'a');
  t.is((await t.throwsAsync(hashes.hash(other, identity), { instanceOf: SignetError }))?.code, 'caller_changed');
});

test('many callers of one program share one reading, and one failure is not shared', async (t) => {
  const path = join(temporaryDirectory(t), 'file');
  writeFileSync(path, 'a');
  const identity = await identifyFile(path);
  const hashes = new FileHashes(later);
  const paths = ['/nonexistent', path, '/nonexistent', path, path];
  const results = await Promise.allSettled(paths.map((each) => hashes.hash(each, identity)));
  t.is(results[0]?.status, 'rejected');
  t.deepEqual(results.map((result) => result.status === 'fulfilled' && result.value === digestOf('a')).slice(1, 2), [true]);
  t.true(results.slice(3).every((result) => result.status === 'fulfilled' && result.value === digestOf('a')));
});

test('more different files than readers are all hashed, and the one not used for longest is forgotten', async (t) => {
  const directory = temporaryDirectory(t);
  const hashes = new FileHashes(later);
  const paths = Array.from({ length: 257 }, (_, i) => join(directory, String(i)));
  for (const path of paths) writeFileSync(path, path);
  const identities = await Promise.all(paths.map(identifyFile));
  const hash = (i: number, path = paths[i] ?? ''): Promise<string> => hashes.hash(path, identities[i] ?? t.fail() as never);
  await Promise.all(Array.from({ length: 256 }, (_, i) => hash(i)));
  t.is(await hash(0, '/nonexistent'), digestOf(paths[0] ?? ''));
  await hash(256);
  t.is(await hash(0, '/nonexistent'), digestOf(paths[0] ?? ''));
  await t.throwsAsync(hash(1, '/nonexistent'), { code: 'ENOENT' });
});
