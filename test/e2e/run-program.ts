import { execFile, type ExecFileOptions } from 'node:child_process';

const OUTPUT_LIMIT = 64 * 1024 * 1024;
const DEFAULT_TIMEOUT_MS = 120_000;

export interface RunOptions {
  readonly input?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Default 120,000. */
  readonly timeoutMs?: number;
  readonly cwd?: string;
}

/** The command, how it ended, and what it said. */
export class ProgramError extends Error {
  readonly code: number | string | undefined;
  readonly stdout: string;

  constructor(message: string, code: number | string | undefined, stdout: string) {
    super(message);
    this.code = code;
    this.stdout = stdout;
  }
}

/** Runs a program to its end; resolves with its stdout, rejects with a ProgramError. */
export function runProgram(argv: readonly string[], options: RunOptions = {}): Promise<string> {
  const [program = '', ...args] = argv;
  const settings: ExecFileOptions = {
    env: { ...process.env, ...options.env },
    timeout: options.timeoutMs ?? DEFAULT_TIMEOUT_MS,
    maxBuffer: OUTPUT_LIMIT,
    cwd: options.cwd,
  };
  return new Promise((resolve, reject) => {
    const child = execFile(program, args, { ...settings, encoding: 'utf8' }, (error, stdout, stderr) => {
      if (error === null) return resolve(stdout);
      const said = (stderr + stdout).trim().slice(-2_000);
      const end = error.killed === true ? 'took too long' : `ended with ${error.code}`;
      reject(new ProgramError(`${argv.join(' ').slice(0, 300)}: ${end}: ${said}`, error.code ?? undefined, stdout));
    });
    // A program that ends before it has read everything says why in its own words.
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(options.input ?? '');
  });
}
