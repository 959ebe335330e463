import type { Clock } from '../clock.ts';
import type { RefusalReason } from '../events.ts';

export interface ShareLimits {
  /** In all, and for each owner. */
  readonly connections: number;
  readonly connectionsPerOwner: number;
  /** A second; twice as many may come at once. */
  readonly connectionRatePerOwner: number;
  readonly calls: number;
  readonly callsPerOwner: number;
  readonly callRatePerOwner: number;
}

interface Share {
  connections: number;
  calls: number;
  exchanges: number;
  heldBytes: number;
  readonly connectionRate: TokenBucket;
  readonly callRate: TokenBucket;
}

/**
 * How much of the agent each owner of callers (a user, later a pod) may take. Asked before any work is done for a caller, so that
 * whoever takes too much exhausts only the own share.
 */
export class OwnerLimits {
  readonly #limits: ShareLimits;
  readonly #clock: Clock;
  readonly #shares = new Map<string, Share>();
  #connections = 0;
  #calls = 0;

  constructor(limits: ShareLimits, clock: Clock) {
    this.#limits = limits;
    this.#clock = clock;
  }

  /** True when not even one more connection fits, whoever it is from: it need not be looked at then. */
  get isFull(): boolean {
    return this.#connections >= this.#limits.connections;
  }

  /** Takes a place for a connection, given back with `leave`; or says why there is none. */
  enter(owner: string): RefusalReason | undefined {
    const share = this.#share(owner);
    if (this.isFull || share.connections >= this.#limits.connectionsPerOwner) return this.#refuse(owner, share, 'too_many_connections');
    if (!share.connectionRate.take(this.#clock.monotonic())) return this.#refuse(owner, share, 'connection_rate');
    this.#connections += 1;
    share.connections += 1;
    return undefined;
  }

  leave(owner: string): void {
    const share = this.#share(owner);
    this.#connections -= 1;
    share.connections -= 1;
    this.#forget(owner, share);
  }

  /** Takes a place for a call, given back with `finish`; or says why there is none. An exchange is a call with a stream of requests. */
  begin(owner: string, isExchange = false, now = this.#clock.monotonic()): RefusalReason | undefined {
    const share = this.#share(owner);
    if (!share.callRate.take(now)) return this.#refuse(owner, share, 'call_rate');
    if (this.#calls >= this.#limits.calls || share.calls >= this.#limits.callsPerOwner) return this.#refuse(owner, share, 'too_many_calls');
    if (isExchange && share.exchanges >= EXCHANGES_PER_OWNER) return this.#refuse(owner, share, 'too_many_calls');
    this.#calls += 1;
    share.calls += 1;
    if (isExchange) share.exchanges += 1;
    return undefined;
  }

  /** Takes of the rate of calls what one costs, for one more request of a call that has a place; false when there is none left. */
  ask(owner: string): boolean {
    return this.#share(owner).callRate.take(this.#clock.monotonic());
  }

  finish(owner: string, isExchange = false): void {
    const share = this.#share(owner);
    this.#calls -= 1;
    share.calls -= 1;
    if (isExchange) share.exchanges -= 1;
    this.#forget(owner, share);
  }

  /**
   * Takes room for `bytes` that a connection keeps in memory; false when there is not enough. Negative gives back. For an owner with at
   * least one connection. Answers that wait for their reader get half of it, so that requests can still come.
   */
  hold(owner: string, bytes: number, isAnswer = false): boolean {
    const share = this.#share(owner);
    const most = isAnswer ? HELD_BYTES_PER_OWNER / 2 : HELD_BYTES_PER_OWNER;
    if (bytes > 0 && share.heldBytes + bytes > most) return false;
    share.heldBytes += bytes;
    return true;
  }

  /** What is taken now, in all. */
  get taken(): { readonly connections: number; readonly calls: number; readonly owners: number } {
    return { connections: this.#connections, calls: this.#calls, owners: this.#shares.size };
  }

  #share(owner: string): Share {
    let share = this.#shares.get(owner);
    if (share === undefined) {
      const now = this.#clock.monotonic();
      share = {
        connections: 0,
        calls: 0,
        exchanges: 0,
        heldBytes: 0,
        connectionRate: new TokenBucket(this.#limits.connectionRatePerOwner, now),
        callRate: new TokenBucket(this.#limits.callRatePerOwner, now),
      };
      this.#shares.set(owner, share);
    }
    return share;
  }

  #refuse(owner: string, share: Share, reason: RefusalReason): RefusalReason {
    this.#forget(owner, share);
    return reason;
  }

  /** An owner that holds nothing is forgotten once its buckets are full again: whoever comes back early is still remembered. */
  #forget(owner: string, share: Share): void {
    if (isInUse(share)) return;
    const now = this.#clock.monotonic();
    if (share.connectionRate.isFull(now) && share.callRate.isFull(now)) this.#shares.delete(owner);
    else if (this.#shares.size > MANY_OWNERS) this.#sweep(now);
  }

  #sweep(now: number): void {
    for (const [owner, share] of this.#shares) {
      if (!isInUse(share) && share.connectionRate.isFull(now) && share.callRate.isFull(now)) this.#shares.delete(owner);
    }
  }
}

function isInUse(share: Share): boolean {
  return share.connections > 0 || share.calls > 0;
}

/** Reflection is for a person with a tool. What such a call has sent and nobody has read yet takes a whole flow-control window. */
const EXCHANGES_PER_OWNER = 32;

/**
 * What has come and is not a whole request, and answers that are not read: 64 of the largest requests. Without it every connection of
 * an owner could hold the largest there is, hundreds of MiB in all.
 */
const HELD_BYTES_PER_OWNER = 8 * 1024 * 1024;

/** More owners than a node has; from here on those that are gone are looked for. */
const MANY_OWNERS = 1_024;

/** Seconds of the rate that may be taken at once. */
const BURST = 2;

class TokenBucket {
  readonly #perSecond: number;
  #tokens: number;
  #filledAt: number;

  constructor(perSecond: number, now: number) {
    this.#perSecond = perSecond;
    this.#tokens = perSecond * BURST;
    this.#filledAt = now;
  }

  take(now: number): boolean {
    this.#fill(now);
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }

  isFull(now: number): boolean {
    this.#fill(now);
    return this.#tokens >= this.#perSecond * BURST;
  }

  #fill(now: number): void {
    this.#tokens = Math.min(this.#tokens + ((now - this.#filledAt) / 1000) * this.#perSecond, this.#perSecond * BURST);
    this.#filledAt = now;
  }
}
