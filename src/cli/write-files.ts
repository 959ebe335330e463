import { randomUUID } from 'node:crypto';
import { chmod, lstat, mkdir, mkdtemp, open, readdir, readlink, rename, rm, symlink } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { X509Context } from '../client/responses.ts';
import { messageOf, systemCode } from '../errors.ts';
import { trustDomainOf } from '../spiffe/id.ts';
import { toPem } from '../spiffe/pem.ts';
import { CommandError } from './usage-error.ts';

export interface NewFile {
  readonly name: string;
  readonly text: string;
  readonly mode: number;
}

const KEY_MODE = 0o600;
const PUBLIC_MODE = 0o644;

/** The link that says which generation counts, named as the kubelet names its own so that file watchers know it. */
const CURRENT = '..data';
const GENERATION = '..generation-';
const LINK = '..link-';
/** Every name that this command has ever given a file. */
const OUR_NAME = /^(?:svid\.\d+\.(?:pem|key)|bundle\.\d+\.pem|federated_bundle\.\d+\.\d+\.pem)$/;
/** What is older was left behind by a process that was killed; a younger one may still be at work. */
const ABANDONED_MS = 3_600_000;

/**
 * The files of a context, named as `spire-agent api fetch x509 -write` names them: `svid.N.pem` (chain), `svid.N.key` (PKCS#8),
 * `bundle.N.pem` and `federated_bundle.N.M.pem`.
 */
export function filesOf({ identities, bundles }: X509Context): NewFile[] {
  return identities.flatMap((identity, index) => {
    const own = trustDomainOf(identity.id);
    const federated = [...bundles].filter(([trustDomain]) => !identities.some(({ id }) => trustDomainOf(id) === trustDomain));
    return [
      { name: `svid.${index}.key`, text: toPem('PRIVATE KEY', identity.privateKey), mode: KEY_MODE },
      { name: `svid.${index}.pem`, text: pemOf(identity.chain), mode: PUBLIC_MODE },
      { name: `bundle.${index}.pem`, text: pemOf(bundles.get(own) ?? []), mode: PUBLIC_MODE },
      ...federated.map(([, der], other) => {
        return { name: `federated_bundle.${index}.${other}.pem`, text: pemOf(der), mode: PUBLIC_MODE };
      }),
    ];
  });
}

/**
 * Replaces the files of `directory` as a set. Each plain name is a link through `..data` into a directory of one generation, and
 * `..data` is swapped by one rename: at each moment all names lead into one generation, and neither an error (disk full) nor a
 * kill leaves half a set. A reader that opens two files just as the swap happens can still hold one of each generation, as with
 * the kubelet's volumes. Names of an earlier, larger set are removed; other files are left alone. Where plain files of these
 * names stand, made by another program, they are replaced one after the other.
 *
 * @throws CommandError that says whether the old files or the new ones are in place.
 */
export async function writeSet(directory: string, files: readonly NewFile[], nowMs: number): Promise<void> {
  let standing = 'the files that were there are unchanged';
  try {
    await mkdir(directory, { recursive: true, mode: 0o755 });
    await refuseDirectories(directory, files);
    const previous = await currentGeneration(directory);
    const links = await switchTo(directory, files);
    standing = 'the new files are in place, but not all of the old ones could be replaced or removed';
    for (const { name, aside } of links) await rename(aside, join(directory, name));
    await syncDirectory(directory);
    await removeStale(directory, files, previous, nowMs);
  } catch (error) {
    if (error instanceof CommandError) throw error;
    throw new CommandError(`cannot write to ${directory}: ${messageOf(error)}`, standing, { cause: error });
  }
}

/** A link that waits beside the plain name it is to have. */
interface Link {
  readonly name: string;
  readonly aside: string;
}

/** Makes all that needs room on the disk, then swaps `..data`. On an error before the swap nothing is left of the attempt. */
async function switchTo(directory: string, files: readonly NewFile[]): Promise<Link[]> {
  const suffix = randomUUID();
  const links = files.map(({ name }) => ({ name, aside: join(directory, `${LINK}${name}-${suffix}`) }));
  const next = join(directory, `${LINK}data-${suffix}`);
  let generation: string | undefined;
  try {
    generation = await writeGeneration(directory, files);
    for (const { name, aside } of links) await symlink(join(CURRENT, name), aside);
    await symlink(basename(generation), next);
    await rename(next, join(directory, CURRENT));
  } catch (error) {
    for (const path of [generation, next, ...links.map(({ aside }) => aside)]) {
      if (path !== undefined) await rm(path, { recursive: true, force: true });
    }
    throw error;
  }
  return links;
}

/** @returns the path of the new directory, complete and on disk. */
async function writeGeneration(directory: string, files: readonly NewFile[]): Promise<string> {
  const generation = await mkdtemp(join(directory, GENERATION));
  try {
    for (const { name, text, mode } of files) await writeFile(join(generation, name), text, mode);
    await chmod(generation, 0o755);
    await syncDirectory(generation);
  } catch (error) {
    await rm(generation, { recursive: true, force: true });
    throw error;
  }
  return generation;
}

async function writeFile(path: string, text: string, mode: number): Promise<void> {
  await using file = await open(path, 'wx', KEY_MODE);
  await file.writeFile(text);
  // The umask must not decide who may read.
  await file.chmod(mode);
  await file.sync();
}

async function removeStale(
  directory: string,
  files: readonly NewFile[],
  previous: string | undefined,
  nowMs: number,
): Promise<void> {
  const kept = new Set(files.map(({ name }) => name));
  const current = await currentGeneration(directory);
  for (const name of await readdir(directory)) {
    const path = join(directory, name);
    const stale = OUR_NAME.test(name) && !kept.has(name) && (await isOurLink(path, name));
    const replaced = name === previous && name !== current;
    const aside = (name.startsWith(GENERATION) || name.startsWith(LINK)) && name !== current;
    const abandoned = aside && (await ageMs(path, nowMs)) > ABANDONED_MS;
    if (stale || replaced || abandoned) await rm(path, { recursive: true, force: true });
  }
}

async function refuseDirectories(directory: string, files: readonly NewFile[]): Promise<void> {
  for (const { name } of files) {
    const path = join(directory, name);
    const found = await orUndefined(lstat(path));
    if (found?.isDirectory() === true) throw new CommandError(`${path} is a directory`, 'move it away, or write elsewhere');
  }
}

async function currentGeneration(directory: string): Promise<string | undefined> {
  const target = await orUndefined(readlink(join(directory, CURRENT)));
  return target?.startsWith(GENERATION) === true && basename(target) === target ? target : undefined;
}

async function isOurLink(path: string, name: string): Promise<boolean> {
  return (await orUndefined(readlink(path))) === join(CURRENT, name);
}

async function ageMs(path: string, nowMs: number): Promise<number> {
  const found = await orUndefined(lstat(path));
  return found === undefined ? 0 : nowMs - found.mtimeMs;
}

async function syncDirectory(path: string): Promise<void> {
  await using directory = await open(path, 'r');
  await directory.sync();
}

/** Undefined when the file is absent (or, for readlink, is no link). */
async function orUndefined<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (['ENOENT', 'EINVAL'].includes(systemCode(error) ?? '')) return undefined;
    throw error;
  }
}

function pemOf(certificates: readonly Buffer[]): string {
  return certificates.map((der) => toPem('CERTIFICATE', der)).join('');
}
