import { resolveEndpoint } from '../client/endpoint.ts';
import type { WorkloadApiClient } from '../client/workload-api-client.ts';
import { systemCode } from '../errors.ts';
import { readArguments, type Arguments } from './arguments.ts';
import type { Command, Context } from './command.ts';
import { COMMANDS } from './command-list.ts';
import { EXIT, type ExitCode } from './exit-codes.ts';
import { explainFailure } from './failure.ts';
import { commandHelp, overview } from './help.ts';
import { write, type Io } from './io.ts';
import { nearest } from '../config/nearest.ts';
import { painter } from './render.ts';
import { UsageError } from './usage-error.ts';

export type { Io } from './io.ts';

/** Commands that are run elsewhere but belong on the list of `signet --help`, as pairs of name and summary. */
export type OtherCommands = readonly (readonly [string, string])[];

/**
 * Runs `signet <name> <argv…>` and returns its exit code (see exit-codes.ts). Never throws for a failure of the command: that
 * is told on standard error. `help`, `--help`, `-h` and `--version` are commands too.
 */
export async function runCommand(name: string, argv: readonly string[], io: Io, others: OtherCommands = []): Promise<number> {
  // Timers of the clock do not hold the process, and a command that waits for its next attempt must not end silently.
  const hold = setInterval(() => undefined, 2 ** 30);
  const ignore = (): void => undefined;
  // A write reports its error itself; without a listener the stream's event would end the process.
  io.stdout.on('error', ignore);
  try {
    return await dispatch(name, argv, io, others);
  } catch (error) {
    return await endBadly(error, undefined, io);
  } finally {
    clearInterval(hold);
    io.stdout.removeListener('error', ignore);
  }
}

async function dispatch(name: string, argv: readonly string[], io: Io, others: OtherCommands): Promise<ExitCode> {
  if (name === '--version') return dispatch('version', argv, io, others);
  const wantsHelp = ['help', '--help', '-h'].includes(name);
  const [first = '', ...rest] = wantsHelp ? argv : [name, ...argv];
  const found = findCommand(first, rest);
  if (wantsHelp && first === '') return showHelp(io, overview(COMMANDS, others));
  if (found === undefined) return group(first, rest, io, others);
  if (wantsHelp) return showHelp(io, commandHelp(found.name, found.command));
  return runOne(found.name, found.command, found.argv, io);
}

interface Found {
  readonly name: string;
  readonly command: Command;
  readonly argv: readonly string[];
}

/** A command's name is one word or two: `fetch x509`. */
function findCommand(first: string, rest: readonly string[]): Found | undefined {
  const two = `${first} ${rest[0] ?? ''}`;
  if (Object.hasOwn(COMMANDS, two)) return { name: two, command: COMMANDS[two] as Command, argv: rest.slice(1) };
  return Object.hasOwn(COMMANDS, first) ? { name: first, command: COMMANDS[first] as Command, argv: rest } : undefined;
}

/** `signet fetch`, `signet fetch --help`, or a name that does not exist. */
async function group(first: string, rest: readonly string[], io: Io, others: OtherCommands): Promise<ExitCode> {
  const members = Object.entries(COMMANDS).filter(([name]) => name.startsWith(`${first} `));
  const [second] = rest;
  if (members.length > 0 && (rest.includes('--help') || rest.includes('-h'))) {
    return showHelp(io, overview(Object.fromEntries(members), []));
  }
  if (members.length > 0 && (second === undefined || second.startsWith('-'))) {
    throw new UsageError(`"signet ${first}" needs one of: ${members.map(([name]) => name.slice(first.length + 1)).join(', ')}`);
  }
  const typed = members.length > 0 ? `${first} ${second}` : first;
  const names = Object.keys(COMMANDS);
  const known = [...names, ...others.map(([name]) => name), ...names.map((name) => name.split(' ')[0] ?? '')];
  const near = nearest(typed, known);
  const advice = near === undefined ? 'see "signet --help"' : `did you mean "signet ${near}"?`;
  throw new UsageError(`unknown command ${JSON.stringify(typed)}; ${advice}`);
}

async function runOne(name: string, command: Command, argv: readonly string[], io: Io): Promise<ExitCode> {
  if (argv.includes('--help') || argv.includes('-h')) return showHelp(io, commandHelp(name, command));
  let target: string | undefined;
  let opened: WorkloadApiClient | undefined;
  try {
    const args = readArguments(argv, command.options);
    assertPositionals(name, command, args);
    const open = async (): Promise<WorkloadApiClient> => {
      target = resolveEndpoint(args.socket, io.env);
      opened = await openClient(args, io);
      return opened;
    };
    const run = await command.load();
    return await run(createContext(args, io, open));
  } catch (error) {
    if (error instanceof UsageError) throw new UsageError(`${error.message}\n  see "signet ${name} --help"`, { cause: error });
    return await endBadly(error, target, io);
  } finally {
    await opened?.close();
  }
}

function assertPositionals(name: string, { positionals: [fewest, most], usage }: Command, { positionals }: Arguments): void {
  if (positionals.length < fewest) throw new UsageError(`something is missing: signet ${name} ${usage}`);
  if (positionals.length > most) {
    throw new UsageError(`${JSON.stringify(positionals[most])} is one argument too many: signet ${name} ${usage}`);
  }
}

function createContext(args: Arguments, io: Io, client: Context['client']): Context {
  return {
    args,
    io,
    paint: painter(io),
    print: (text) => write(io.stdout, text),
    note: (text) => write(io.stderr, `${text}\n`),
    client,
  };
}

async function openClient(args: Arguments, io: Io): Promise<WorkloadApiClient> {
  const timeoutMs = args.duration('timeout');
  const { WorkloadApiClient } = await import('../client/workload-api-client.ts');
  return new WorkloadApiClient({ endpoint: args.socket, env: io.env, ...(timeoutMs === undefined ? {} : { timeoutMs }) });
}

async function showHelp(io: Io, text: string): Promise<ExitCode> {
  await write(io.stdout, text);
  return EXIT.ok;
}

async function endBadly(error: unknown, target: string | undefined, io: Io): Promise<ExitCode> {
  // The reader of a pipe has seen enough: `signet watch | head -n 1`.
  if (systemCode(error) === 'EPIPE') return EXIT.ok;
  if (io.signal.aborted) return EXIT.interrupted;
  const { exit, problem, next } = await explainFailure(error, target);
  const lines = [`signet: ${problem}`, ...(next === undefined ? [] : [`  ${next}`])];
  // When standard error is gone too, the exit code still tells.
  await write(io.stderr, `${lines.join('\n')}\n`).catch(() => undefined);
  return exit;
}
