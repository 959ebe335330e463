import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import type { Argv } from './rows.ts';

// Longer than a program's own bounds (README.md), which give the better message.
const KILL_AFTER_MS = 120_000;
const STDERR_TAIL_CHARACTERS = 2_000;

const running = new Set<Program>();

/** Ends every program that still runs; for the end of a test file. */
export async function stopPrograms(): Promise<void> {
  await Promise.all([...running].map((program) => program.kill()));
}

/** A client's program as a running process. */
export class Program {
  readonly #child: ChildProcessByStdio<null, Readable, Readable>;
  readonly #lines: AsyncIterator<string>;
  readonly #ended: Promise<number | NodeJS.Signals>;
  #stderr = '';

  constructor(argv: Argv, args: readonly string[], env: Readonly<Record<string, string>> = {}) {
    const [command, ...before] = argv;
    this.#child = spawn(command, [...before, ...args], {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: KILL_AFTER_MS,
      killSignal: 'SIGKILL',
    });
    running.add(this);
    this.#ended = new Promise((resolve, reject) => {
      this.#child.once('error', reject);
      this.#child.once('close', (code, signal) => resolve(code ?? signal ?? 'SIGKILL'));
    });
    // The rejection is for whoever awaits the end; until then it must not count as unhandled.
    this.#ended.catch(() => undefined).finally(() => running.delete(this));
    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-STDERR_TAIL_CHARACTERS);
    });
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  /** The next line of stdout; undefined at its end. */
  async line(): Promise<string | undefined> {
    const next = await this.#lines.next();
    return next.done === true ? undefined : next.value;
  }

  /** The next line of stdout as JSON; rejects at its end. */
  async json(): Promise<unknown> {
    const line = await this.line();
    if (line === undefined) throw new Error(`the program ended (${await this.end()}) without a further line: ${this.#stderr}`);
    return JSON.parse(line);
  }

  /** The lines left on stdout. */
  async rest(): Promise<string[]> {
    const lines: string[] = [];
    for (let line = await this.line(); line !== undefined; line = await this.line()) lines.push(line);
    return lines;
  }

  /** The exit code, or the name of the signal that ended it. */
  end(): Promise<number | NodeJS.Signals> {
    return this.#ended;
  }

  /** What the program last wrote to stderr. */
  get stderr(): string {
    return this.#stderr;
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#ended.catch(() => undefined);
  }
}

/** What a program that ended has left. */
export interface Outcome {
  readonly code: number | NodeJS.Signals;
  readonly lines: readonly string[];
  readonly stderr: string;
}

/** Runs a program to its end. */
export async function runProgram(argv: Argv, args: readonly string[], env?: Readonly<Record<string, string>>): Promise<Outcome> {
  const program = new Program(argv, args, env);
  const [lines, code] = await Promise.all([program.rest(), program.end()]);
  return { code, lines, stderr: program.stderr };
}
