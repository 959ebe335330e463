import { SystemClock } from '../../src/clock.ts';
import { Readiness } from '../../src/telemetry/readiness.ts';
import { openTelemetry } from '../../src/telemetry/telemetry.ts';
import { startTestAgent, type TestAgent } from '../support/agent.ts';
import { fullSources, silentLog } from './observed.ts';
import type { Address } from './scrape.ts';

export interface ObservedAgent {
  readonly agent: TestAgent;
  readonly address: Address;
  readonly stop: () => Promise<void>;
}

/** A whole agent whose events are followed. What is read from its rooms is as told by `fullSources`. */
export async function observeAgent(config: Readonly<Record<string, unknown>> = {}): Promise<ObservedAgent> {
  const agent = await startTestAgent({ config });
  const { events } = agent.agent;
  const clock = new SystemClock();
  const sources = fullSources(clock);
  const readiness = new Readiness({ events, clock, pods: () => sources.pods() });
  readiness.phase = 'serving';
  const telemetry = await openTelemetry({
    address: { host: '127.0.0.1', port: 0 },
    events,
    clock,
    log: silentLog,
    readiness,
    sources,
    live: () => true,
    version: '0.0.0',
    descriptorLimit: 1_024,
  });
  const stop = async (): Promise<void> => {
    telemetry.close();
    await agent.stop();
  };
  return { agent, address: telemetry.address, stop };
}
