import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { runToEnd } from './process.ts';
import { watchMachine, type Busyness } from './machine.ts';

/** One look at a process, as `load` prints it. Memory in KiB; `error` tells why figures are missing. */
export interface Usage {
  readonly rss_kib: number;
  readonly pss_kib: number;
  readonly anonymous_kib: number;
  readonly fds: number;
  readonly error?: string;
}

export interface StreamsDetail {
  readonly all_after_ms: number;
  readonly open: readonly Usage[];
  readonly per_stream?: Omit<Usage, 'error'>;
  readonly hold_s: number;
  readonly hold_cpu_s: readonly number[];
  readonly closed: readonly Usage[];
  readonly broken: Readonly<Record<string, number>>;
}

export interface ChurnDetail {
  readonly samples: readonly (Usage & { readonly rounds: number })[] | null;
}

export interface Rotation {
  readonly streams: number;
  readonly spread_ms: number;
  readonly left_s: number;
  readonly life_gone: number;
}

export interface RotateDetail {
  readonly rotations: readonly Rotation[] | null;
  readonly expired: number;
  readonly broken: number;
  readonly repeated: number;
  readonly incomplete: number;
  readonly wrong: Readonly<Record<string, number>>;
  readonly ttl_s: number;
  readonly message_bytes: number;
  /** The same number of plain writes of the same size to Unix sockets. */
  readonly plain: { readonly writes_ms: number; readonly spread_ms: number } | null;
}

export interface Latency {
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
}

/** `storm -own`: `latency_ms` counts from the instant at which all were let go, this from each caller's own connect. */
export interface OwnDetail {
  readonly own_ms: Latency | null;
  readonly users: number;
}

export interface StormsDetail {
  readonly last_ms: readonly number[] | null;
  readonly served: readonly number[] | null;
  /** The first storm, from 1, that lost a caller; 0: none. */
  readonly lost_in: number;
}

export interface ReconnectDetail {
  readonly broken_unix_ms: number;
  readonly first_unix_ms: number;
  readonly last_unix_ms: number;
  readonly attempts: number;
}

export interface FairDetail {
  readonly quiet: LoadReport;
  readonly noisy: LoadReport;
  readonly noise: LoadReport;
}

export interface AwaitDetail {
  readonly at_unix_ms: number;
  readonly attempts: number;
}

/** What one process under test spent on a load, and a look at it on either side. */
export interface ProcessReport {
  readonly pid: number;
  readonly cpu_s: number;
  readonly before: Usage;
  readonly peak: { readonly rss_kib: number; readonly anonymous_kib: number };
  readonly after: Usage;
}

/** The object that every command of the Go client prints; see load/main.go. */
export interface LoadReport<D = unknown> {
  readonly command: string;
  readonly args: readonly string[];
  readonly count: number;
  readonly seconds: number;
  readonly per_second: number;
  readonly latency_ms?: Latency;
  readonly errors: Readonly<Record<string, number>>;
  readonly error_example?: string;
  readonly client_cpu_s: number;
  readonly processes?: readonly ProcessReport[];
  /** Each operation, where there are at most a thousand. */
  readonly durations_us?: readonly number[];
  readonly detail?: D;
}

/** One run of the client, and what else the machine did meanwhile. */
export interface Sample<D = unknown> {
  /** Which round, from 0: those of the same number ran side by side. Default: its place in the list. */
  readonly round?: number;
  readonly report: LoadReport<D>;
  readonly busyness: Busyness;
}

export interface Target {
  readonly socketPath: string;
  readonly pids: readonly number[];
}

/** The load generator: a Go program, so that Node is only on the measured side. */
export class LoadClient {
  readonly #binary: string;
  readonly #signal: AbortSignal;

  private constructor(binary: string, signal: AbortSignal) {
    this.#binary = binary;
    this.#signal = signal;
  }

  /** Builds the client into `directory` (a build cache makes the second time quick). Rejects when Go is missing. */
  static async build(directory: string, signal: AbortSignal): Promise<LoadClient> {
    const binary = join(directory, 'load');
    const options = { cwd: join(import.meta.dirname, 'load'), timeoutMs: 600_000, signal };
    const args = ['build', '-trimpath', '-buildvcs=false', '-o', binary, '.'];
    const built = await runToEnd('go', args, options).catch((error: unknown) => {
      throw new Error('the load client is a Go program: `go` could not be run', { cause: error });
    });
    if (built.code !== 0 || !existsSync(binary)) throw new Error(`the load client did not build:\n${built.errors}`);
    return new LoadClient(binary, signal);
  }

  /**
   * Runs one command; `seconds` is about how long it should take, and bounds it (four times that and a minute). `onEvent` is called
   * with each line that the command prints before its report; `signal` ends it early, which rejects.
   */
  async run<D = unknown>(
    target: Target, args: readonly string[], seconds: number,
    { onEvent, signal }: { readonly onEvent?: (line: string) => void; readonly signal?: AbortSignal } = {},
  ): Promise<Sample<D>> {
    const pids = target.pids.length > 0 ? ['-pid', target.pids.join(',')] : [];
    const done = watchMachine();
    const timeoutMs = (seconds * 4 + 60) * 1000;
    const either = signal === undefined ? this.#signal : AbortSignal.any([this.#signal, signal]);
    const options = { timeoutMs, signal: either, ...(onEvent === undefined ? {} : { onLine: onEvent }) };
    const { code, output, errors } = await runToEnd(this.#binary, [...args, '-socket', target.socketPath, ...pids], options);
    if (code !== 0) throw new Error(`load ${args.join(' ')}: ${errors.trim() || `exit code ${code}`}`);
    const report = JSON.parse(output.trim().split('\n').at(-1) ?? '') as LoadReport<D>;
    const own = (report.processes ?? []).reduce((sum, { cpu_s }) => sum + cpu_s, report.client_cpu_s);
    // Without the socket and the processes, which are others each time.
    return { report: { ...report, args }, busyness: done(own) };
  }
}
