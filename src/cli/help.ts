import type { Command } from './command.ts';
import { EXIT_MEANINGS } from './exit-codes.ts';
import type { Options } from './arguments.ts';

/** `--help` of one command. */
export function commandHelp(name: string, command: Command): string {
  const sections = [
    `${command.summary}\n`,
    `Usage:\n  signet ${name} ${command.usage}\n`,
    ...(command.details === undefined ? [] : [`${command.details}\n`]),
    `Options:\n${optionLines(command.options)}`,
    `Examples:\n${command.examples.map((example) => `  ${example}\n`).join('')}`,
    exitCodeLines(),
  ];
  return sections.join('\n');
}

/** The list of all commands. `others` are those that are run elsewhere, as pairs of name and summary. */
export function overview(commands: Readonly<Record<string, Command>>, others: readonly (readonly [string, string])[]): string {
  const rows = [...others, ...Object.entries(commands).map(([name, { summary }]) => [name, summary] as const)];
  const sections = [
    'Usage:\n  signet <command> [options]\n',
    `Commands:\n${aligned(rows)}`,
    'The endpoint is named by --socket or by SPIFFE_ENDPOINT_SOCKET. "signet <command> --help" shows options and examples.\n',
    exitCodeLines(),
  ];
  return sections.join('\n');
}

function optionLines(options: Options): string {
  return aligned(
    Object.entries(options).map(([name, { short, value, help, multiple }]) => [
      `${short === undefined ? '    ' : `-${short}, `}--${name}${value === undefined ? '' : ` ${value}`}`,
      multiple === true ? `${help} (may be repeated)` : help,
    ]),
  );
}

function exitCodeLines(): string {
  return `Exit codes:\n${aligned(Object.entries(EXIT_MEANINGS))}`;
}

function aligned(rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(...rows.map(([left]) => left.length));
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}\n`).join('');
}
