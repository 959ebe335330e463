import type { WorkloadApiClient } from '../client/workload-api-client.ts';
import type { Arguments, Options } from './arguments.ts';
import type { ExitCode } from './exit-codes.ts';
import type { Io } from './io.ts';
import type { Paint } from './render.ts';

/** What a running command is given. */
export interface Context {
  readonly args: Arguments;
  readonly io: Io;
  readonly paint: Paint;
  /** Writes to standard output. */
  print(text: string): Promise<void>;
  /** Writes a line to standard error. */
  note(text: string): Promise<void>;
  /** Opens the endpoint that the options or the environment name; closed after the command. */
  client(): Promise<WorkloadApiClient>;
}

export type Run = (context: Context) => Promise<ExitCode>;

/** One command as it is listed; its code is loaded when it runs. */
export interface Command {
  /** What follows the command's name in its usage line. */
  readonly usage: string;
  readonly summary: string;
  readonly details?: string;
  readonly options: Options;
  /** Fewest and most positional arguments. */
  readonly positionals: readonly [number, number];
  readonly examples: readonly string[];
  load(): Promise<Run>;
}
