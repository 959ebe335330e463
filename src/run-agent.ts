import { Agent } from './agent.ts';
import { EXIT } from './cli/exit-codes.ts';
import { SystemClock } from './clock.ts';
import type { Config } from './config/config.ts';
import { ConfigError, formatProblems, loadConfig } from './config/load.ts';
import { isSignetError, messageOf } from './errors.ts';
import { openKernel } from './kernel.ts';
import { createLog, logMistake, type Log } from './log.ts';
import { systemRandom } from './random.ts';

/** The agent as a process: its configuration, its signals, its end. Resolves with the exit code. */
export async function runAgent(configPath: string): Promise<number> {
  let config: Config;
  try {
    config = loadConfig(configPath, process.env);
  } catch (error) {
    process.stderr.write(error instanceof ConfigError ? formatProblems(error) : `signet: ${messageOf(error)}\n`);
    return EXIT.usage;
  }
  const log = createLog(config.log.level);
  surviveMistakes(log);
  // The clock's timers hold no process, and while the agent leaves there may be nothing else that does.
  const hold = setInterval(() => undefined, 2 ** 30);
  try {
    const kernel = openKernel();
    kernel.harden();
    // Workloads must reach the socket, whatever the shell's mask; files with keys have a mode of their own.
    process.umask(0o022);
    const agent = new Agent(config, { clock: new SystemClock(), random: systemRandom, kernel, log, env: process.env });
    obeySignals(agent, config, configPath, log);
    await agent.start();
    return (await agent.stopped) === 'stopped' ? EXIT.ok : EXIT.refused;
  } catch (error) {
    log.error({ event: 'agent.failed', err: messageOf(error) }, isSignetError(error) ? 'the agent could not start' : 'the agent has failed');
    process.stderr.write(`signet: ${messageOf(error)}\n`);
    return EXIT.refused;
  } finally {
    clearInterval(hold);
  }
}

function obeySignals(agent: Agent, config: Config, configPath: string, log: Log): void {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      log.info({ event: 'agent.stopping', reason: signal }, 'the agent was told to stop');
      void agent.stop();
    });
  }
  process.on('SIGHUP', () => reload(agent, config, configPath, log));
}

/** Only the entries are taken; a file with any fault changes nothing. */
function reload(agent: Agent, running: Config, configPath: string, log: Log): void {
  agent.reopenAudit();
  try {
    const { entries, ...rest } = loadConfig(configPath, process.env);
    agent.replaceEntries(entries);
    const { entries: _, ...before } = running;
    if (JSON.stringify(rest) !== JSON.stringify(before)) {
      log.warn({ event: 'config.partly_read', config: configPath }, 'only the entries were read again; the other changes need a restart');
    }
  } catch (error) {
    const err = error instanceof ConfigError ? formatProblems(error) : messageOf(error);
    log.error({ event: 'config.refused', config: configPath, err }, 'the file has faults; the entries stay as they were');
  }
}

/**
 * A mistake in one call must not take the identities of a whole node away: it is written down and the others go on. What holds
 * state across calls guards it itself.
 */
function surviveMistakes(log: Log): void {
  const tell = (error: unknown): void => logMistake(log, error);
  process.on('uncaughtException', tell);
  process.on('unhandledRejection', tell);
}
