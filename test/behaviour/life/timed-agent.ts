import { X509Certificate } from 'node:crypto';
import type { ExecutionContext } from 'ava';
import { startTestAgent, type TestAgent, type TestAgentOptions } from '../../support/agent.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { RawClient, type RawStream, type Svid } from '../../support/raw-client.ts';

export const API = '/SpiffeWorkloadAPI/';
export const TD = 'spiffe://example.org';
export const SELF = [`unix:uid:${process.geteuid?.()}`];
export const SECOND = 1_000;
export const MINUTE = 60 * SECOND;
export const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;

export interface Svids {
  readonly svids: readonly Svid[];
}

export interface Bundles {
  readonly bundles: Readonly<Record<string, Buffer>>;
}

export interface TimedAgent {
  readonly clock: FakeClock;
  readonly agent: TestAgent;
  readonly client: RawClient;
  /** Stops the agent, which waits for its clock; earlier than at the end of the test, for restarts. */
  stop(): Promise<void>;
}

/** A whole agent whose clock only the test moves. It stops with the test. */
export async function startTimedAgent(t: ExecutionContext, options: TestAgentOptions & { readonly clock?: FakeClock } = {}): Promise<TimedAgent> {
  const clock = options.clock ?? new FakeClock();
  const agent = await startTestAgent({ ...options, clock });
  const client = new RawClient(agent.socketPath);
  const stop = async (): Promise<void> => {
    client.close();
    await whileMoving(clock, () => agent.stop());
  };
  t.teardown(stop);
  return { clock, agent, client, stop };
}

/** Moves the clock in small steps until `work` is done: what the agent waits for in between needs some time. */
export async function whileMoving<T>(clock: FakeClock, work: () => Promise<T>, stepMs = 10): Promise<T> {
  const turn = setInterval(() => clock.advance(stepMs), 2);
  try {
    return await work();
  } finally {
    clearInterval(turn);
  }
}

/** The next message of a stream, while the clock moves a little. */
export function nextOn<T>(clock: FakeClock, stream: RawStream<T>): Promise<T> {
  return whileMoving(clock, () => stream.next());
}

/** The first message of a stream of its own. */
export async function firstOf<T>(client: RawClient, method: string): Promise<T> {
  const stream = client.stream<T>(`${API}${method}`);
  const message = await stream.next();
  stream.cancel();
  return message;
}

/** DER certificates that stand one after the other. */
export function certificatesOf(bytes: Buffer): X509Certificate[] {
  const all: X509Certificate[] = [];
  for (let rest = bytes; rest.length > 0; rest = rest.subarray(all.at(-1)?.raw.length)) all.push(new X509Certificate(rest));
  return all;
}

export function leafOf(message: Svids, index = 0): X509Certificate {
  const svid = message.svids[index];
  if (svid === undefined) throw new Error(`there is no SVID ${index}`);
  return new X509Certificate(svid.x509_svid);
}

export function isValidAt(leaf: X509Certificate, now: number): boolean {
  return leaf.validFromDate.getTime() <= now && now < leaf.validToDate.getTime();
}

export function isSignedByOneOf(leaf: X509Certificate, bundle: Buffer): boolean {
  return certificatesOf(bundle).some((root) => leaf.verify(root.publicKey));
}
