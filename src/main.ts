import { parseArgs } from 'node:util';
import { runCommand, type Io, type OtherCommands } from './cli/commands.ts';
import { EXIT } from './cli/exit-codes.ts';
import { messageOf } from './errors.ts';

const AGENT_HELP = `Usage: signet agent --config FILE

Runs the agent in the foreground until it is stopped (SIGTERM, SIGINT) or another agent takes its place.
SIGHUP reads the entries of FILE again; everything else needs a restart.

Options:
  -c, --config FILE   the configuration (YAML); "signet config check FILE" only reads it
  -h, --help          show this help

Exit codes: 0 stopped, 1 failed, 2 wrong usage or configuration
`;

/** Commands that are run here and listed by `signet --help`. */
const OWN_COMMANDS: OtherCommands = [['agent', 'run the agent']];

process.exitCode = await main(process.argv.slice(2));
// Nothing that is still open (a terminal, a pipe) may hold a process whose work is done.
process.exit();

async function main(argv: readonly string[]): Promise<number> {
  const [name = 'help', ...rest] = argv;
  if (name === 'agent') return runAgentCommand(rest);
  const interrupted = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => interrupted.abort());
  const io: Io = {
    stdout: process.stdout,
    stderr: process.stderr,
    stdin: process.stdin,
    env: process.env,
    signal: interrupted.signal,
    isTty: process.stdout.isTTY === true,
    now: Date.now,
  };
  return runCommand(name, rest, io, OWN_COMMANDS);
}

async function runAgentCommand(argv: string[]): Promise<number> {
  try {
    const { values } = parseArgs({ args: argv, options: { config: { type: 'string', short: 'c' }, help: { type: 'boolean', short: 'h' } } });
    if (values.help === true) {
      process.stdout.write(AGENT_HELP);
      return EXIT.ok;
    }
    if (values.config === undefined) throw new Error('the option --config FILE is missing');
    const { runAgent } = await import('./run-agent.ts');
    return await runAgent(values.config);
  } catch (error) {
    process.stderr.write(`signet: ${messageOf(error)}\n  see "signet agent --help"\n`);
    return EXIT.usage;
  }
}
