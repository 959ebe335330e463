/** The agent under test: one of our own, or the one that SIGNET_INTEROP_SOCKET names. */
export interface TestAgent {
  readonly socketPath: string;
  /** The one SPIFFE ID that this process owns there. */
  readonly id: string;
  /** The hint of its SVIDs; undefined when it is not known. */
  readonly hint: string | undefined;
  stop(): Promise<unknown>;
}

const DEFAULT_ID = 'spiffe://example.org/ns/default/sa/root';
const HINT = 'interop';

/**
 * Starts an agent that owns nothing but the caller's uid. With SIGNET_INTEROP_SOCKET (a path) an agent that already runs is
 * used instead: SIGNET_INTEROP_ID is the ID it gives to this process, default `spiffe://example.org/ns/default/sa/root`, and
 * its X509-SVIDs must live so short that they renew within 90 s.
 */
export async function startTestAgent(): Promise<TestAgent> {
  const socketPath = process.env['SIGNET_INTEROP_SOCKET'];
  if (socketPath !== undefined) {
    return { socketPath, id: process.env['SIGNET_INTEROP_ID'] ?? DEFAULT_ID, hint: undefined, stop: async () => undefined };
  }
  const { startAgentProcess } = await import('../support/agent-process.ts');
  const uid = process.getuid?.() ?? 0;
  const agent = await startAgentProcess({
    config: {
      trustDomain: 'example.org',
      // Renewal at half of life: a rotation each 15 s, and 15 s left for the slowest handshake.
      x509: { ttl: '30s' },
      entries: [{ id: DEFAULT_ID, selectors: [`unix:uid:${uid}`], hint: HINT }],
    },
  });
  return { socketPath: agent.socketPath, id: DEFAULT_ID, hint: HINT, stop: () => agent.stop() };
}
