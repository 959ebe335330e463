import { constants } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { Socket } from 'node:net';
import type { Alarm, Clock } from '../clock.ts';
import { SignetError, systemCode } from '../errors.ts';
import type { AuditFigures } from './sources.ts';

/** What waits to be written, at most. A line is a few hundred bytes. */
const MOST_LINES = 16_384;
const MOST_BYTES = 4 * 1024 * 1024;

/** What cannot be written is tried again, first after a second, at last every half minute. */
const FIRST_RETRY_MS = 1_000;
const LAST_RETRY_MS = 30_000;
/** A reader of standard output that has stopped is asked again after this. */
const STALLED_MS = 100;

/** The last lines get this much time when the agent ends. */
const FAREWELL_MS = 1_000;

/** Never waits for a reader (a FIFO, a pipe), never follows a link that somebody put in the file's place. */
const FLAGS = constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NOFOLLOW | constants.O_NONBLOCK;
const MODE = 0o600;

const STANDARD_OUTPUT = '/proc/self/fd/1';
const NEW_LINE = 0x0a;

export interface AuditFileTools {
  readonly clock: Clock;
  readonly onFailure: (error: unknown, retryMs: number) => void;
}

/** A file that is open. */
interface Sink {
  /** How many of `bytes`, from `offset` on, it took. */
  write(bytes: Buffer, offset: number): Promise<number>;
  close(): Promise<void>;
  /** There is no other to open in its place. */
  readonly isLast?: true;
}

interface Batch {
  readonly bytes: Buffer;
  readonly lines: number;
  offset: number;
}

/** Lines that are appended to a file, or to standard output (`-`), behind the back of whoever writes them. */
export class AuditFile {
  readonly #path: string;
  readonly #tools: AuditFileTools;
  readonly #figures = { written: 0, dropped: 0, failures: 0 };
  #queue: string[] = [];
  #queuedBytes = 0;
  #batch: Batch | undefined;
  #sink: Sink | undefined;
  #pumping: Promise<void> | undefined;
  #alarm: Alarm | undefined;
  #failures = 0;
  #isReopening = true;
  #isClosed = false;

  constructor(path: string, tools: AuditFileTools) {
    this.#path = path;
    this.#tools = tools;
    // Made now, not with the first line: that it cannot be made is known at once.
    this.#pump();
  }

  get figures(): AuditFigures {
    return { ...this.#figures };
  }

  /** Takes a line, without its end. Neither waits nor throws; what there is no room for is counted. */
  append(line: string): void {
    if (this.#isClosed || this.#queue.length >= MOST_LINES || this.#queuedBytes + line.length > MOST_BYTES) {
      this.#figures.dropped += 1;
      return;
    }
    this.#queue.push(line);
    this.#queuedBytes += line.length;
    this.#pump();
  }

  /** Goes on in the file that has the path now. What is being written ends in the old one. */
  reopen(): void {
    if (this.#isClosed) return;
    this.#isReopening = true;
    this.#pumpNow();
  }

  /** Writes what waits, for a bounded time. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    if (this.#hasWork) this.#pumpNow();
    this.#isClosed = true;
    const late = Promise.withResolvers<void>();
    const patience = this.#tools.clock.after(FAREWELL_MS, late.resolve);
    await Promise.race([this.#finish(), late.promise]);
    patience.cancel();
    this.#rewind();
    this.#figures.dropped += this.#queue.length + (this.#batch?.lines ?? 0);
    this.#queue = [];
    this.#batch = undefined;
  }

  async #finish(): Promise<void> {
    await this.#pumping;
    await this.#sink?.close().catch(() => undefined);
  }

  /** Without waiting for the next attempt. */
  #pumpNow(): void {
    this.#alarm?.cancel();
    this.#alarm = undefined;
    this.#pump();
  }

  #pump(): void {
    if (this.#pumping !== undefined || this.#alarm !== undefined) return;
    this.#pumping = this.#work()
      .catch((error: unknown) => this.#failed(error))
      .finally(() => {
        this.#pumping = undefined;
        // What came between the last look and now.
        if (this.#hasWork && !this.#isClosed) this.#pump();
      });
  }

  get #hasWork(): boolean {
    return this.#isReopening || this.#batch !== undefined || this.#queue.length > 0;
  }

  async #work(): Promise<void> {
    while (this.#hasWork) {
      if (this.#isReopening || this.#sink === undefined) await this.#open();
      else await this.#write(this.#sink);
    }
  }

  async #open(): Promise<void> {
    const old = this.#sink;
    this.#isReopening = false;
    if (old?.isLast === true) return;
    this.#sink = undefined;
    await old?.close().catch(() => undefined);
    const isTorn = this.#rewind();
    const sink = this.#path === '-' ? await openStandardOutput() : await openRegular(this.#path);
    if (isTorn) await sink.write(Buffer.from('\n'), 0);
    this.#sink = sink;
  }

  async #write(sink: Sink): Promise<void> {
    const batch = (this.#batch ??= this.#nextBatch());
    if (batch === undefined) return;
    batch.offset += await sink.write(batch.bytes, batch.offset);
    this.#failures = 0;
    if (batch.offset < batch.bytes.length) return;
    this.#figures.written += batch.lines;
    this.#batch = undefined;
  }

  #nextBatch(): Batch | undefined {
    if (this.#queue.length === 0) return undefined;
    const bytes = Buffer.from(`${this.#queue.join('\n')}\n`);
    const lines = this.#queue.length;
    this.#queue = [];
    this.#queuedBytes = 0;
    return { bytes, lines, offset: 0 };
  }

  /** A line of which only the beginning was written is written again, whole and on a line of its own. */
  #rewind(): boolean {
    if (this.#batch === undefined || this.#batch.offset === 0) return false;
    const { bytes, lines, offset } = this.#batch;
    const from = bytes.lastIndexOf(NEW_LINE, offset - 1) + 1;
    const written = linesIn(bytes.subarray(0, from));
    this.#figures.written += written;
    this.#batch = { bytes: bytes.subarray(from), lines: lines - written, offset: 0 };
    return from < offset;
  }

  #failed(error: unknown): void {
    if (systemCode(error) === 'EAGAIN') return this.#retryAfter(STALLED_MS);
    this.#figures.failures += 1;
    this.#failures += 1;
    const retryMs = Math.min(FIRST_RETRY_MS * 2 ** (this.#failures - 1), LAST_RETRY_MS);
    this.#isReopening = true;
    this.#retryAfter(retryMs);
    this.#tools.onFailure(error, retryMs);
  }

  #retryAfter(ms: number): void {
    if (this.#isClosed) return;
    this.#alarm = this.#tools.clock.after(ms, () => {
      this.#alarm = undefined;
      this.#pump();
    });
  }
}

async function openRegular(path: string): Promise<Sink> {
  const file = await open(path, FLAGS, MODE);
  const stat = await file.stat();
  if (stat.isFile()) return sinkOf(file);
  await file.close();
  throw new SignetError('unavailable', `audit.path ${path} is not a regular file`);
}

/** Opened a second time, so that not to wait for its reader is a property of this file alone and not of the process's output. */
async function openStandardOutput(): Promise<Sink> {
  try {
    return sinkOf(await open(STANDARD_OUTPUT, constants.O_WRONLY | constants.O_APPEND | constants.O_NONBLOCK));
  } catch (error) {
    // A socket (systemd's journal), or a pipe of another user.
    if (systemCode(error) !== 'ENXIO' && systemCode(error) !== 'EACCES') throw error;
    return socketSink(new Socket({ fd: 1, readable: false, writable: true }));
  }
}

function sinkOf(file: FileHandle): Sink {
  return { write: async (bytes, offset) => (await file.write(bytes, offset)).bytesWritten, close: () => file.close() };
}

/**
 * Libuv neither blocks on it nor waits for it when the process ends. When it fails its descriptor is closed, and the number may be
 * another file's by then: it is never opened again.
 */
function socketSink(socket: Socket): Sink {
  socket.unref();
  const lost = new Promise<never>((_, reject) => socket.once('error', reject));
  lost.catch(() => undefined);
  const write = (bytes: Buffer): Promise<number> => new Promise((resolve) => socket.write(bytes, (error) => error ?? resolve(bytes.length)));
  return { write: (bytes, offset) => Promise.race([write(bytes.subarray(offset)), lost]), close: () => Promise.resolve(), isLast: true };
}

function linesIn(bytes: Buffer): number {
  let count = 0;
  for (let at = bytes.indexOf(NEW_LINE); at !== -1; at = bytes.indexOf(NEW_LINE, at + 1)) count += 1;
  return count;
}
