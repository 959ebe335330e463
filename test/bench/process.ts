import { spawn, type ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';

/** What a finished command left. `output` is its standard output. */
export interface Finished {
  readonly code: number | null;
  readonly output: string;
  readonly errors: string;
}

export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** After this the command is killed and the promise rejects. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  /** Called with each whole line of standard output, as it comes. */
  readonly onLine?: (line: string) => void;
}

/**
 * Runs a command to its end; any exit code resolves. Rejects when it cannot be started, takes too long or `signal` is aborted.
 */
export function runToEnd(command: string, args: readonly string[], options: RunOptions): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      env: { ...process.env, ...options.env },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      stdio: ['ignore', 'pipe', 'pipe'],
      signal: AbortSignal.any([options.signal, AbortSignal.timeout(options.timeoutMs)]),
      killSignal: 'SIGKILL',
    });
    let output = '';
    let errors = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      const lines = (output.slice(output.lastIndexOf('\n') + 1) + text).split('\n').slice(0, -1);
      output += text;
      for (const line of lines) options.onLine?.(line);
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text));
    child.once('error', (error) => {
      const late = error.name === 'AbortError' && !options.signal.aborted;
      const text = `${command} took longer than ${options.timeoutMs / 1000} s: ${errors.trim().slice(-500)}`;
      reject(late ? new Error(text) : error);
    });
    child.once('exit', (code) => {
      // A daemon that the command left behind may keep the pipes open: what it says is not awaited for ever.
      const finish = (): void => {
        child.stdout.destroy();
        child.stderr.destroy();
        resolve({ code, output, errors });
      };
      const patience = setTimeout(finish, 1_000);
      child.once('close', () => {
        clearTimeout(patience);
        finish();
      });
    });
  });
}

/** Ends a child: SIGTERM, then SIGKILL after `graceMs`. Resolves when it has gone. */
export async function endChild(child: ChildProcess, graceMs = 10_000): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  child.kill('SIGTERM');
  const killer = setTimeout(() => child.kill('SIGKILL'), graceMs);
  await gone;
  clearTimeout(killer);
}

/** The process that does the work: a shell that did not `exec` its command is passed over. */
export function workingProcess(pid: number): number {
  for (let current = pid; ; ) {
    const name = readFileSync(`/proc/${current}/comm`, 'utf8').trim();
    const children = readFileSync(`/proc/${current}/task/${current}/children`, 'utf8').trim().split(' ').filter(Boolean);
    const [only] = children;
    if (!/^(sh|dash|bash|busybox)$/.test(name) || only === undefined || children.length !== 1) return current;
    current = Number(only);
  }
}
