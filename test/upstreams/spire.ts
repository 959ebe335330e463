import { writeFileSync } from 'node:fs';
import { SpireServer, type SpireServerOptions } from '../support/spire-server.ts';
import { TRUST_DOMAIN } from './agents.ts';

/** A SPIRE server of our own. */
export async function spireFor(started: AsyncDisposableStack, options: SpireServerOptions = {}): Promise<SpireServer> {
  return started.use(await SpireServer.start({ trustDomain: TRUST_DOMAIN, ...options }));
}

/** The part of an agent's configuration that says who signs, with a join token of its own in `name`. */
export async function underSpire(server: SpireServer, name: string, ttl = '1h'): Promise<Readonly<Record<string, unknown>>> {
  const tokenFile = server.path(name);
  writeFileSync(tokenFile, await server.token());
  writeFileSync(server.bundleFile, await server.cli('bundle', 'show'));
  const spire = { address: server.address, bundleFile: server.bundleFile, attestation: { method: 'join_token', tokenFile } };
  return { authority: { type: 'spire', acceptUnconstrainedCA: true, ttl, spire }, jwt: { ttl: '60s' } };
}
