import { createHash } from 'node:crypto';
import { open, stat, type FileHandle } from 'node:fs/promises';
import type { BigIntStats } from 'node:fs';
import type { Clock } from '../clock.ts';
import { SignetError } from '../errors.ts';

/** How many hashes are remembered. */
const MOST_HASHES = 256;

/** Reads at once: a disk that hangs must leave threads of the pool (4) to everyone else. */
const MOST_READERS = 2;

const CHUNK_BYTES = 1 << 20;

/**
 * File times move in steps of a clock tick, so a file may change without its times telling while these are fresh. Hashes of such
 * a file are not kept.
 */
const FRESH_MS = 2_000;

/** Tells one content of one file from another. */
export interface FileIdentity {
  /** `dev:ino:size:mtimeNs:ctimeNs` */
  readonly key: string;
  readonly size: number;
  readonly changedMs: number;
}

export async function identifyFile(path: string): Promise<FileIdentity> {
  return identityOf(await stat(path, { bigint: true }));
}

function identityOf({ dev, ino, size, mtimeNs, ctimeNs }: BigIntStats): FileIdentity {
  const changedMs = Number((mtimeNs > ctimeNs ? mtimeNs : ctimeNs) / 1_000_000n);
  return { key: [dev, ino, size, mtimeNs, ctimeNs].join(':'), size: Number(size), changedMs };
}

/** SHA-256 of files, each content read once: many callers often run one program. */
export class FileHashes {
  readonly #clock: Clock;
  readonly #known = new Map<string, string>();
  readonly #reading = new Map<string, Promise<string>>();
  readonly #queue: (() => void)[] = [];
  #readers = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * The SHA-256 of the file at `path`, in lower-case hexadecimal digits.
   *
   * @throws SignetError `caller_changed` when it is not, or not all the while, the file `identity` was taken from.
   */
  async hash(path: string, identity: FileIdentity): Promise<string> {
    for (;;) {
      const known = this.#recall(identity.key);
      if (known !== undefined) return known;
      const other = this.#reading.get(identity.key);
      if (other === undefined) return this.#lead(path, identity);
      // Another caller's process may end, and its path with it; that says nothing of this one.
      const digest = await other.catch(() => undefined);
      if (digest !== undefined) return digest;
    }
  }

  async #lead(path: string, identity: FileIdentity): Promise<string> {
    const reading = this.#withReader(() => readDigest(path, identity));
    this.#reading.set(identity.key, reading);
    try {
      const digest = await reading;
      if (Math.abs(this.#clock.now() - identity.changedMs) > FRESH_MS) this.#remember(identity.key, digest);
      return digest;
    } finally {
      this.#reading.delete(identity.key);
    }
  }

  async #withReader<T>(read: () => Promise<T>): Promise<T> {
    if (this.#readers < MOST_READERS) this.#readers++;
    else await new Promise<void>((resolve) => this.#queue.push(resolve));
    try {
      return await read();
    } finally {
      const next = this.#queue.shift();
      if (next === undefined) this.#readers--;
      else next();
    }
  }

  #recall(key: string): string | undefined {
    const digest = this.#known.get(key);
    if (digest !== undefined) this.#remember(key, digest);
    return digest;
  }

  /** A Map keeps the order of insertion: the first key is the one that was not used for longest. */
  #remember(key: string, digest: string): void {
    this.#known.delete(key);
    this.#known.set(key, digest);
    const [oldest] = this.#known.keys();
    if (this.#known.size > MOST_HASHES && oldest !== undefined) this.#known.delete(oldest);
  }
}

async function readDigest(path: string, identity: FileIdentity): Promise<string> {
  const file = await open(path, 'r');
  try {
    await assertIdentity(file, identity);
    const hash = createHash('sha256');
    const chunk = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, Math.max(identity.size, 1)));
    for (let left = identity.size; left > 0; ) {
      const { bytesRead } = await file.read(chunk, 0, Math.min(chunk.length, left), null);
      if (bytesRead === 0) break;
      hash.update(chunk.subarray(0, bytesRead));
      left -= bytesRead;
    }
    await assertIdentity(file, identity);
    return hash.digest('hex');
  } finally {
    await file.close();
  }
}

async function assertIdentity(file: FileHandle, identity: FileIdentity): Promise<void> {
  const { key } = identityOf(await file.stat({ bigint: true }));
  if (key !== identity.key) throw new SignetError('caller_changed', 'the executable was replaced or modified while it was read');
}
