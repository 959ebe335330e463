import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';
import { loadLibc, type Libc } from '../../src/kernel.ts';

export interface PeerOptions {
  readonly socket: string;
  /** Default 1. */
  readonly connections?: number;
  /** Taken on before connecting. */
  readonly uid?: number;
  readonly gid?: number;
  readonly groups?: readonly number[];
}

type Teardown = Pick<ExecutionContext, 'teardown'>;

/** A child that is killed, unless it has ended, when the test ends. Its lines of output can be awaited. */
export class TestProcess {
  readonly child: ChildProcess;
  readonly exited: Promise<unknown>;
  readonly #lines: AsyncIterator<string>;

  constructor(t: Teardown, command: string, args: readonly string[], options: { uid?: number; gid?: number } = {}) {
    this.child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'], ...options });
    this.child.stdin?.on('error', () => {});
    this.exited = once(this.child, 'exit');
    if (this.child.stdout === null) throw new Error('no standard output');
    this.#lines = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]();
    t.teardown(() => this.stop());
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error('not started');
    return this.child.pid;
  }

  async line(): Promise<string> {
    const { value, done } = await this.#lines.next();
    if (done === true) throw new Error('the process ended without a further line');
    return value;
  }

  async ask(command: string): Promise<string> {
    this.tell(command);
    return this.line();
  }

  tell(command: string): void {
    this.child.stdin?.write(`${command}\n`);
  }

  async stop(): Promise<void> {
    this.child.stdin?.end();
    if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill('SIGKILL');
    await this.exited;
  }
}

export function startScript(t: Teardown, script: string, ...args: string[]): TestProcess {
  return new TestProcess(t, process.execPath, [supportFile(script), ...args]);
}

export function supportFile(name: string): string {
  return fileURLToPath(new URL(name, import.meta.url));
}

/** A process that has connected. It obeys `read <bytes>`, `pass [uid]`, `exec <path>` and ends with its standard input. */
export async function startPeer(t: Teardown, options: PeerOptions): Promise<TestProcess> {
  const peer = startScript(t, 'kernel-peer.ts', JSON.stringify(options));
  await peer.line();
  return peer;
}

/** A directory that every user can enter, removed when the test ends. */
export function temporaryDirectory(t: Teardown): string {
  const directory = mkdtempSync(join(tmpdir(), 'signet-kernel-'));
  chmodSync(directory, 0o755);
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** A listening Unix socket; connections are not read from. */
export class TestListener {
  readonly path: string;
  readonly #server: net.Server;
  readonly #all: net.Socket[] = [];
  readonly #unclaimed: net.Socket[] = [];
  #arrived = Promise.withResolvers<void>();

  private constructor(path: string) {
    this.path = path;
    this.#server = net.createServer({ pauseOnConnect: true, allowHalfOpen: true }, (socket) => this.#accept(socket));
  }

  static async open(t: Teardown, path = join(temporaryDirectory(t), 'socket')): Promise<TestListener> {
    const listener = new TestListener(path);
    listener.#server.listen({ path, writableAll: true, readableAll: true, backlog: 4096 });
    await once(listener.#server, 'listening');
    t.teardown(() => listener.close());
    return listener;
  }

  async next(): Promise<net.Socket> {
    for (;;) {
      const socket = this.#unclaimed.shift();
      if (socket !== undefined) return socket;
      await this.#arrived.promise;
    }
  }

  async close(): Promise<void> {
    for (const socket of this.#all) socket.destroy();
    this.#server.close();
    await once(this.#server, 'close');
  }

  #accept(socket: net.Socket): void {
    socket.on('error', () => {});
    this.#all.push(socket);
    this.#unclaimed.push(socket);
    this.#arrived.resolve();
    this.#arrived = Promise.withResolvers();
  }
}

/** The C library as on a kernel before 6.5. */
export function libcWithoutPeerPidfd(): Libc {
  return refusing(loadLibc(), 'getsockopt', (_fd, _level, name) => (name === 77 ? 'ENOPROTOOPT' : undefined));
}

/** The C library as on a kernel before 6.13. */
export function libcWithoutPidfdInfo(): Libc {
  return refusing(loadLibc(), 'ioctl', (_fd, request) => (request === 0xc040_ff0b ? 'ENOTTY' : undefined));
}

/** `libc` whose function `name` fails where `refuse` gives an errno. */
function refusing<K extends 'getsockopt' | 'ioctl'>(libc: Libc, name: K, refuse: (...args: Parameters<Libc[K]>) => string | undefined): Libc {
  let refusal: string | undefined;
  const call = (...args: Parameters<Libc[K]>): number => {
    refusal = refuse(...args);
    return refusal === undefined ? (libc[name] as (...args: Parameters<Libc[K]>) => number)(...args) : -1;
  };
  return {
    ...libc,
    [name]: call,
    errno: () => {
      const errno = refusal ?? libc.errno();
      refusal = undefined;
      return errno;
    },
  };
}

/** Waits, bounded, until `condition` holds. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  const end = performance.now() + 20_000;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`did not happen: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** Waits, bounded, without letting the event loop turn: children that end meanwhile stay zombies. */
export function untilWithoutReaping(condition: () => boolean, what: string): void {
  const end = performance.now() + 20_000;
  const cell = new Int32Array(new SharedArrayBuffer(4));
  while (!condition()) {
    if (performance.now() > end) throw new Error(`did not happen: ${what}`);
    Atomics.wait(cell, 0, 0, 1);
  }
}
