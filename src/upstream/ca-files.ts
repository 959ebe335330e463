import { createPrivateKey, type KeyObject } from 'node:crypto';
import { constants, type Stats } from 'node:fs';
import { open, realpath, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { messageOf, SignetError } from '../errors.ts';
import { isEncrypted, readPem, type PemBlock } from '../spiffe/pem.ts';

/** Where a CA is. */
export interface CaPaths {
  /** PEM: the CA's certificate first, then those between it and its root, perhaps the root. */
  readonly certificate: string;
  /** PEM: its private key, not encrypted (PKCS#8, SEC1 or PKCS#1). */
  readonly key: string;
  /** PEM: roots that are believed besides. */
  readonly roots: readonly string[];
}

/** The files of a CA as they were at one moment. */
export interface CaFiles {
  readonly certificates: readonly Buffer[];
  readonly privateKey: KeyObject;
  readonly roots: readonly Buffer[];
  readonly warnings: readonly string[];
}

/** The texts of the files, which tell whether anything has changed. */
export interface CaTexts {
  readonly certificate: string;
  readonly key: string;
  readonly roots: readonly string[];
  readonly warnings: readonly string[];
}

/** No chain of certificates comes near this. */
const LARGEST = 256 * 1024;

/** A swap between two reads shows in what the paths lead to; after so many of them whatever was read is judged. */
const MOST_READS = 3;

const ROLE = { certificate: 'the CA certificate', key: "the CA's private key", roots: 'the root certificates' } as const;
type Part = keyof typeof ROLE;

/**
 * Reads all files. Links are followed, since a mounted Secret consists of them.
 *
 * @throws SignetError `state_refused` when one cannot be read, or others could have put it there.
 */
export async function readCaTexts(paths: CaPaths): Promise<CaTexts> {
  for (let reads = 1; ; reads += 1) {
    const before = await whereabouts(paths);
    const certificate = await readOne('certificate', paths.certificate);
    const key = await readOne('key', paths.key);
    const roots: Read[] = [];
    for (const path of paths.roots) roots.push(await readOne('roots', path));
    if (reads < MOST_READS && before !== (await whereabouts(paths))) continue;
    const warnings = (key.stats.mode & 0o044) === 0 ? [] : [`${ROLE.key} ${paths.key} may be read by others (mode ${octal(key.stats)})`];
    return { certificate: certificate.text, key: key.text, roots: roots.map(({ text }) => text), warnings };
  }
}

/** @throws SignetError `state_refused` when a text is not the PEM that it should be. */
export function parseCaTexts(texts: CaTexts, paths: CaPaths): CaFiles {
  return {
    certificates: certificatesOf('certificate', texts.certificate, paths.certificate),
    privateKey: privateKeyOf(texts.key, paths.key),
    roots: texts.roots.flatMap((text, index) => certificatesOf('roots', text, paths.roots[index] ?? '')),
    warnings: texts.warnings,
  };
}

/** A refusal that names the part, its file or files, and what to do. */
export function refusedFile(part: Part, path: string, what: string, remedy: string, cause?: unknown): SignetError {
  return new SignetError('state_refused', `${ROLE[part]} ${path} cannot be used: ${what}. What to do: ${remedy}.`, { cause });
}

interface Read {
  readonly text: string;
  readonly stats: Stats;
}

async function readOne(part: Part, path: string): Promise<Read> {
  try {
    // Without O_NONBLOCK a FIFO would hold a thread of the pool until somebody writes to it.
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const stats = await file.stat();
      if (!stats.isFile()) throw refusedFile(part, path, 'it is not a regular file', 'put a file there');
      if (stats.size > LARGEST) throw refusedFile(part, path, `it has ${stats.size} bytes, more than ${LARGEST}`, 'put the PEM file there');
      checkWritable(part, path, stats);
      const directories = new Set([dirname(path), dirname(await realpath(path))]);
      for (const directory of directories) checkDirectory(part, path, directory, await stat(directory));
      return { text: await file.readFile('utf8'), stats };
    } finally {
      await file.close();
    }
  } catch (error) {
    if (error instanceof SignetError) throw error;
    throw refusedFile(part, path, messageOf(error), `put it there, readable for uid ${process.geteuid?.()}`, error);
  }
}

/** Whoever may write one of these files chooses what the whole trust domain believes. */
function checkWritable(part: Part, path: string, stats: Stats): void {
  if ((stats.mode & 0o022) !== 0) throw refusedFile(part, path, `others may write it (mode ${octal(stats)})`, `\`chmod go-w ${path}\`, and a new CA if somebody can have done so`);
  if (isStranger(stats)) throw refusedFile(part, path, `it belongs to uid ${stats.uid}, who could replace it`, `\`chown\` it to root or uid ${process.geteuid?.()}`);
}

/** The sticky bit keeps others from replacing files that are not theirs: the kubelet mounts Secrets with 1777. */
function checkDirectory(part: Part, path: string, directory: string, stats: Stats): void {
  const isOpen = (stats.mode & 0o022) !== 0 && (stats.mode & 0o1000) === 0;
  if (isOpen) throw refusedFile(part, path, `others may replace it, since they may write to ${directory} (mode ${octal(stats)})`, `\`chmod go-w ${directory}\``);
  if (isStranger(stats)) throw refusedFile(part, path, `its directory ${directory} belongs to uid ${stats.uid}, who could replace it`, `\`chown\` it to root or uid ${process.geteuid?.()}`);
}

function isStranger({ uid }: Stats): boolean {
  return uid !== 0 && uid !== process.geteuid?.();
}

/** What the paths lead to now, and in which version. */
async function whereabouts({ certificate, key, roots }: CaPaths): Promise<string> {
  const seen = await Promise.all([certificate, key, ...roots].map((path) => stat(path, { bigint: true }).catch(() => undefined)));
  return seen.map((one) => `${one?.dev} ${one?.ino} ${one?.size} ${one?.mtimeNs} ${one?.ctimeNs}`).join('\n');
}

function certificatesOf(part: 'certificate' | 'roots', text: string, path: string): Buffer[] {
  const certificates = blocksOf(part, text, path).filter(({ label }) => label === 'CERTIFICATE');
  if (certificates.length === 0) throw refusedFile(part, path, 'it holds no certificate in PEM', 'write the certificate there as PEM');
  return certificates.map(({ der }) => der);
}

function privateKeyOf(text: string, path: string): KeyObject {
  const keys = blocksOf('key', text, path).filter(({ label }) => label.endsWith('PRIVATE KEY'));
  const [key] = keys;
  if (key === undefined) throw refusedFile('key', path, 'it holds no private key in PEM', "write the CA's private key there as PEM");
  if (keys.length > 1) throw refusedFile('key', path, `it holds ${keys.length} private keys`, 'leave only that of the CA');
  if (isEncrypted(key)) throw refusedFile('key', path, 'it is encrypted', 'decrypt it, for example with `openssl pkey`, and protect the file by its mode');
  try {
    return createPrivateKey(key.text);
  } catch {
    // The reason is OpenSSL's own and helps nobody; what it may quote is part of a key.
    throw refusedFile('key', path, `its block ${key.label} is not a private key`, 'write the key anew, as PKCS#8, SEC1 or PKCS#1');
  }
}

function blocksOf(part: Part, text: string, path: string): PemBlock[] {
  try {
    return readPem(text);
  } catch (error) {
    throw refusedFile(part, path, messageOf(error), 'write it anew; a half-written file is looked at again');
  }
}

function octal({ mode }: Stats): string {
  return (mode & 0o7777).toString(8).padStart(4, '0');
}
