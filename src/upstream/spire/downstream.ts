import { sleep, type Clock } from '../../clock.ts';
import { messageOf } from '../../errors.ts';
import type { TrustDomain } from '../../spiffe/id.ts';
import { agentIdentity, type AgentIdentity } from './agent-state.ts';
import type { NewKey } from './agent-keeper.ts';
import type { SpireConnection, SpireIdentity } from './connection.ts';
import { SpireError } from './spire-error.ts';

export interface DownstreamTools {
  readonly clock: Clock;
  readonly connection: Pick<SpireConnection, 'call'>;
  readonly newKey: NewKey;
}

/** An entry that makes its holder a downstream CA. */
interface DownstreamEntry {
  readonly id: string;
  readonly spiffeId: string;
}

/** The server reads its entries every 5 s by default: an agent that has just joined has none yet. */
export const ENTRY_PATIENCE_MS = 12_000;
const LOOK_MS = 1_000;

/** The part of its life for which the SVID is used. */
const USED_PART = 2 / 3;

/** The identity that may ask for node CAs and publish JWT keys: that of the downstream entry below our agent. Never on disk. */
export class Downstream {
  readonly #trustDomain: TrustDomain;
  readonly #tools: DownstreamTools;
  #entry: DownstreamEntry | undefined;
  #held: { readonly identity: SpireIdentity; readonly entryId: string; readonly until: number } | undefined;

  constructor(trustDomain: TrustDomain, tools: DownstreamTools) {
    this.#trustDomain = trustDomain;
    this.#tools = tools;
  }

  /** Looks whether there is still an entry. @throws SpireError `no_entry`, or what the call fails with. */
  async look(agent: AgentIdentity, signal: AbortSignal): Promise<void> {
    // Without an output mask: with one, servers before 1.14.3 answer the wrong value of `downstream`.
    const { entries } = await this.#tools.connection.call('GetAuthorizedEntries', {}, { identity: agent, signal });
    const found = entries.filter(({ downstream }) => downstream).map(({ id, spiffeId }) => ({ id, spiffeId: `spiffe://${spiffeId?.trustDomain ?? ''}${spiffeId?.path ?? ''}` }));
    // Of several the same one always, whatever order they come in.
    this.#entry = found.sort((a, b) => (a.spiffeId < b.spiffeId ? -1 : a.spiffeId > b.spiffeId ? 1 : a.id < b.id ? -1 : 1))[0];
    if (this.#entry === undefined) {
      this.drop();
      throw new SpireError('no_entry', `the SPIRE server has no downstream entry for our agent ${agent.id} (it names ${entries.length} others). ${remedy(this.#trustDomain)}`);
    }
  }

  /** The identity, made anew where that is due. @throws SpireError, or the signal's reason. */
  async get(agent: AgentIdentity, sinceJoinMs: number, signal: AbortSignal): Promise<SpireIdentity> {
    const held = this.#held;
    if (held !== undefined && held.entryId === this.#entry?.id && this.#tools.clock.now() < held.until) return held.identity;
    const entry = await this.#await(agent, sinceJoinMs, signal);
    const { privateKey, csr } = await this.#tools.newKey();
    const { results } = await this.#tools.connection.call('BatchNewX509SVID', { params: [{ entryId: entry.id, csr }] }, { identity: agent, signal });
    const [{ status, svid } = { status: null, svid: null }] = results;
    // NotFound: the entry has been deleted a moment ago.
    if (svid === null) throw new SpireError(status?.code === 5 ? 'no_entry' : 'denied', `the SPIRE server does not sign the SVID of the downstream entry ${entry.spiffeId}: ${status?.code ?? 'no status'} ${status?.message ?? ''}. ${remedy(this.#trustDomain)}`);
    try {
      const identity = agentIdentity(svid.certChain, privateKey, false, this.#trustDomain);
      const now = this.#tools.clock.now();
      this.#held = { identity, entryId: entry.id, until: now + (identity.notAfter - now) * USED_PART };
      return identity;
    } catch (error) {
      throw new SpireError('malformed', `what the SPIRE server has answered to BatchNewX509SVID is refused: ${messageOf(error)}`, error);
    }
  }

  /** What is held is not used any more. */
  drop(): void {
    this.#held = undefined;
  }

  async #await(agent: AgentIdentity, sinceJoinMs: number, signal: AbortSignal): Promise<DownstreamEntry> {
    const { clock } = this.#tools;
    const end = clock.monotonic() + ENTRY_PATIENCE_MS - sinceJoinMs;
    for (;;) {
      try {
        await this.look(agent, signal);
        if (this.#entry !== undefined) return this.#entry;
      } catch (error) {
        if (!(error instanceof SpireError && error.fault === 'no_entry') || clock.monotonic() >= end) throw error;
      }
      await sleep(clock, LOOK_MS, signal);
    }
  }
}

function remedy(trustDomain: TrustDomain): string {
  return `What to do: "spire-server entry create -downstream -x509SVIDTTL 300 -parentID ID -spiffeID spiffe://${trustDomain}/signet -selector signet:none:none", ID being that of our agent or the one that its token was made for`;
}
