import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync, rmSync } from 'node:fs';
import { resolve } from 'node:path';
import { messageOf } from '../../src/errors.ts';
import { endChild } from './process.ts';
import type { AwaitDetail, LoadClient, Target } from './load-client.ts';

export const PROJECT = resolve(import.meta.dirname, '../..');

export interface StartOptions {
  /** Lifetime of the X509-SVIDs; default 3600. */
  readonly x509TtlSeconds?: number;
  /** Users that have an identity of their own besides uid 0, from `first` on: see `identityOf`. */
  readonly users?: { readonly first: number; readonly count: number };
  /** As the product is delivered: no limit is raised. */
  readonly defaultLimits?: boolean;
  /** What it keeps on disk lets `restart` work. */
  readonly keepState?: boolean;
}

/** A restart on kept state; wall-clock times in milliseconds. */
export interface Restarted {
  /** When the old agent was told to end. */
  readonly signalledAt: number;
  /** When the new one was started. */
  readonly startedAt: number;
  /** From then to the first X509-SVID in a client's hands. */
  readonly ms: number;
}

/** An agent under test: a real process, fresh at each start. */
export interface Subject extends Target {
  readonly name: string;
  /** What was set differently from the product's defaults. */
  readonly settings: string;
  /** Resolves with the milliseconds from the agent's start to the first X509-SVID in a client's hands. */
  start(options?: StartOptions): Promise<number>;
  /** Ends the agent with SIGTERM and starts it again as it was; it has to have been started with `keepState`. */
  restart(): Promise<Restarted>;
  stop(): Promise<void>;
  /** Why it may have failed: how it ended and the end of its log; empty while it runs. */
  diagnosis(): string;
}

/** The identity of a user of `StartOptions.users`; also with `UID` for the client to fill in. */
export function identityOf(uid: number | 'UID'): string {
  return `spiffe://example.org/user/${uid}`;
}

export function userEntries({ users }: StartOptions): { readonly uid: number; readonly id: string }[] {
  return Array.from({ length: users?.count ?? 0 }, (_, i) => (users?.first ?? 0) + i).map((uid) => ({ uid, id: identityOf(uid) }));
}

/** Milliseconds of the wall clock, with more digits than Date.now(). */
export const wallClock = (): number => performance.timeOrigin + performance.now();

export interface Launched {
  readonly child: ChildProcess;
  readonly startedAt: number;
  readonly startMs: number;
}

function endOf(logFile: string): string {
  return existsSync(logFile) ? readFileSync(logFile, 'utf8').trim().split('\n').slice(-15).join('\n') : '';
}

export function diagnose(child: ChildProcess | undefined, logFile: string): string {
  if (child === undefined || (child.exitCode === null && child.signalCode === null)) return '';
  return `the agent has ended (${child.signalCode ?? `exit code ${child.exitCode}`}); the end of its log:\n${endOf(logFile)}`;
}

/**
 * Starts an agent with a client that already waits for its socket. Rejects with the end of its log when it ends or does not
 * serve within a minute.
 */
export async function launch(
  client: LoadClient, socketPath: string, logFile: string, command: string, args: readonly string[],
): Promise<Launched> {
  rmSync(socketPath, { force: true });
  const given = new AbortController();
  const waiting = client.run<AwaitDetail>({ socketPath, pids: [] }, ['await', '-for', '60s'], 60, { signal: given.signal });
  // Handled below; an agent that cannot be spawned must not leave this rejection without anyone.
  waiting.catch(() => {});
  const log = openSync(logFile, 'w');
  const startedAt = wallClock();
  const child = spawn(command, args, { cwd: PROJECT, stdio: ['ignore', log, log] });
  closeSync(log);
  const ended = new Promise<never>((_, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => reject(new Error(`${command} ended (${signal ?? `exit code ${code}`})`)));
  });
  ended.catch(() => {});
  try {
    const { report } = await Promise.race([waiting, ended]);
    if (report.detail === undefined) throw new Error('load await printed no detail');
    return { child, startedAt, startMs: report.detail.at_unix_ms - startedAt };
  } catch (error) {
    given.abort();
    await endChild(child);
    const text = `${command} ${args.join(' ')} does not serve: ${messageOf(error)}; the end of its log:\n${endOf(logFile)}`;
    throw new Error(text, { cause: error });
  }
}
