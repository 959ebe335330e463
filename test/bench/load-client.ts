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
  readonly after: Usage;
}

/** The object that every command of the Go client prints; see load/main.go. */
export interface LoadReport<D = unknown> {
  readonly command: string;
  readonly args: readonly string[];
  readonly count: number;
  readonly seconds: number;
  readonly per_second: number;
  readonly latency_ms?: { readonly p50: number; readonly p90: number; readonly p99: number; readonly max: number };
  readonly errors: Readonly<Record<string, number>>;
  readonly error_example?: string;
  readonly client_cpu_s: number;
  readonly processes?: readonly ProcessReport[];
  readonly detail?: D;
}

/** One run of the client, and what else the machine did meanwhile. */
export interface Sample<D = unknown> {
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

  /** Runs one command; `seconds` is about how long it should take, and bounds it (four times that and a minute). */
  async run<D = unknown>(target: Target, args: readonly string[], seconds: number): Promise<Sample<D>> {
    const pids = target.pids.length > 0 ? ['-pid', target.pids.join(',')] : [];
    const done = watchMachine();
    const options = { timeoutMs: (seconds * 4 + 60) * 1000, signal: this.#signal };
    const { code, output, errors } = await runToEnd(this.#binary, [...args, '-socket', target.socketPath, ...pids], options);
    if (code !== 0) throw new Error(`load ${args.join(' ')}: ${errors.trim() || `exit code ${code}`}`);
    const report = JSON.parse(output) as LoadReport<D>;
    const own = (report.processes ?? []).reduce((sum, { cpu_s }) => sum + cpu_s, report.client_cpu_s);
    return { report, busyness: done(own) };
  }
}
