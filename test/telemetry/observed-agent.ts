import { startTestAgent, type TestAgent } from '../support/agent.ts';
import type { Address } from './scrape.ts';

export interface ObservedAgent extends TestAgent {
  /** Where telemetry is served. */
  readonly address: Address;
}

/** A whole agent with telemetry on a free port of the loopback, and with an audit log where `config` names one. */
export async function observeAgent(config: Readonly<Record<string, unknown>> = {}): Promise<ObservedAgent> {
  const agent = await startTestAgent({ config: { telemetry: { address: '127.0.0.1:0' }, ...config } });
  const address = agent.agent.telemetryAddress;
  if (address !== undefined) return { ...agent, address };
  await agent.stop();
  throw new Error('the agent serves no telemetry');
}
