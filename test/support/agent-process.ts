import { spawn, type ChildProcess } from 'node:child_process';
import { createWriteStream, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { once } from 'node:events';
import { configText } from './agent.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const LAUNCHER = join(ROOT, 'deploy', 'signet');
const START_MS = 20_000;

export interface AgentProcessOptions {
  /** YAML keys that replace those of the default file. */
  readonly config?: Readonly<Record<string, unknown>>;
  readonly env?: Readonly<Record<string, string>>;
  /** A directory to use again, for restarts; by default a new one that `stop` removes. */
  readonly directory?: string;
  /** What to put before the launcher, e.g. `['prlimit', '--nofile=256']`. */
  readonly wrapper?: readonly string[];
}

export interface AgentProcess {
  readonly socketPath: string;
  readonly trustDomain: string;
  readonly pid: number;
  readonly directory: string;
  readonly configPath: string;
  /** All that it has logged so far. */
  log(): string;
  readonly exited: Promise<number | null>;
  signal(name: NodeJS.Signals): void;
  /** SIGTERM, and SIGKILL when it does not go; removes the directory, unless it was given. Resolves with the exit code. */
  stop(): Promise<number | null>;
}

/** The built agent (`make build`) as a real process, started as users start it. Resolves when it is ready. */
export async function startAgentProcess(options: AgentProcessOptions = {}): Promise<AgentProcess> {
  if (!existsSync(join(ROOT, 'dist', 'main.js'))) throw new Error('dist/main.js is missing: run "make build" first');
  const directory = options.directory ?? mkdtempSync(join(tmpdir(), 'signet-agent-'));
  const configPath = join(directory, 'signet.yaml');
  const text = configText(directory, options.config);
  writeFileSync(configPath, text);
  const logPath = join(directory, `agent-${process.hrtime.bigint()}.log`);
  const child = launch(options, configPath, logPath);
  const exited = once(child, 'exit').then(([code]) => code as number | null);
  const log = (): string => (existsSync(logPath) ? readFileSync(logPath, 'utf8') : '');
  const stop = async (): Promise<number | null> => {
    child.kill('SIGTERM');
    const patience = setTimeout(() => child.kill('SIGKILL'), 10_000);
    const code = await exited;
    clearTimeout(patience);
    if (options.directory === undefined) rmSync(directory, { recursive: true, force: true });
    return code;
  };
  await untilReady(child, exited, log);
  const { socketPath, trustDomain } = JSON.parse(text) as { socketPath: string; trustDomain: string };
  return { socketPath, trustDomain, pid: child.pid ?? 0, directory, configPath, log, exited, signal: (name) => void child.kill(name), stop };
}

function launch(options: AgentProcessOptions, configPath: string, logPath: string): ChildProcess {
  const [command = LAUNCHER, ...rest] = [...(options.wrapper ?? []), LAUNCHER, 'agent', '--config', configPath];
  const child = spawn(command, rest, { env: { ...process.env, ...options.env }, stdio: ['ignore', 'ignore', 'pipe'] });
  child.stderr?.pipe(createWriteStream(logPath));
  // Whatever happens to the tests, the agent does not outlive them.
  const kill = (): void => void child.kill('SIGKILL');
  process.once('exit', kill);
  child.once('exit', () => process.off('exit', kill));
  return child;
}

/** The agent says so itself, in a line of its log. */
async function untilReady(child: ChildProcess, exited: Promise<number | null>, log: () => string): Promise<void> {
  let text = '';
  await new Promise<void>((resolve, reject) => {
    const deadline = setTimeout(() => reject(new Error(`the agent was not ready in ${START_MS} ms:\n${text}`)), START_MS);
    child.stderr?.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      if (!text.includes('"event":"agent.ready"')) return;
      clearTimeout(deadline);
      resolve();
    });
    void exited.then((code) => {
      clearTimeout(deadline);
      reject(new Error(`the agent ended with ${code}:\n${log()}${text}`));
    });
  });
}
