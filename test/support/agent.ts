import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Agent } from '../../src/agent.ts';
import { SystemClock, type Clock } from '../../src/clock.ts';
import type { Config } from '../../src/config/config.ts';
import { parseConfig } from '../../src/config/load.ts';
import { openKernel, type Kernel } from '../../src/kernel.ts';
import type { Log, LogFields } from '../../src/log.ts';
import { systemRandom, type Random } from '../../src/random.ts';

export interface LogLine extends LogFields {
  readonly level: 'debug' | 'info' | 'warn' | 'error';
  readonly message: string;
}

export interface TestAgentOptions {
  /** YAML keys that replace those of the default file (merged one level deep). */
  readonly config?: Readonly<Record<string, unknown>>;
  readonly clock?: Clock;
  readonly random?: Random;
  readonly kernel?: Kernel;
  /** A directory to use again, for restarts; by default a new one that `stop` removes. */
  readonly directory?: string;
}

export interface TestAgent {
  readonly agent: Agent;
  readonly config: Config;
  readonly socketPath: string;
  readonly directory: string;
  readonly lines: readonly LogLine[];
  /** Stops the agent and removes its directory, unless it was given. */
  stop(): Promise<void>;
}

/** The SPIFFE ID that `startTestAgent` gives to the user who runs the tests. */
export const OWN_ID = 'spiffe://example.org/ns/default/sa/tester';

/** A whole agent in this process, on a socket of its own. The current user owns `OWN_ID`. */
export async function startTestAgent(options: TestAgentOptions = {}): Promise<TestAgent> {
  const directory = options.directory ?? mkdtempSync(join(tmpdir(), 'signet-test-'));
  const config = testConfig(directory, options.config);
  const lines: LogLine[] = [];
  const agent = new Agent(config, {
    clock: options.clock ?? new SystemClock(),
    random: options.random ?? systemRandom,
    kernel: options.kernel ?? openKernel(),
    log: recordInto(lines),
  });
  await agent.start();
  return {
    agent,
    config,
    socketPath: config.socketPath,
    directory,
    lines,
    stop: async () => {
      // The clock's timers hold no process, and an agent that leaves may have nothing else.
      const hold = setInterval(() => undefined, 2 ** 30);
      await agent.stop();
      clearInterval(hold);
      if (options.directory === undefined) rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** The configuration of a test agent that lives in `directory`. */
export function testConfig(directory: string, overrides: Readonly<Record<string, unknown>> = {}): Config {
  return parseConfig(configText(directory, overrides), 'test.yaml', {});
}

/** The same as YAML text (JSON is YAML). */
export function configText(directory: string, overrides: Readonly<Record<string, unknown>> = {}): string {
  return JSON.stringify({
    trustDomain: 'example.org',
    socketPath: join(directory, 'run', 'api.sock'),
    dataDir: join(directory, 'data'),
    privateDir: join(directory, 'private'),
    entries: [{ id: OWN_ID, selectors: [`unix:uid:${process.geteuid?.()}`] }],
    ...overrides,
  });
}

function recordInto(lines: LogLine[]): Log {
  const recorder = (level: LogLine['level']) => (fields: LogFields, message: string) => void lines.push({ ...fields, level, message });
  return { debug: recorder('debug'), info: recorder('info'), warn: recorder('warn'), error: recorder('error') };
}
