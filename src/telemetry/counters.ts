import type { EventBus, RefusalReason } from '../events.ts';

/** What has happened since the agent started. Every refusal has a counter. */
export class Counters {
  readonly #refused = new Map<RefusalReason, number>();
  readonly #issued = { x509: 0, jwt: 0 };
  readonly #failed = { x509: 0, jwt: 0 };

  constructor(events: EventBus) {
    events.on('refused', ({ reason }) => void this.#refused.set(reason, this.refused(reason) + 1));
    events.on('issued', ({ kind }) => void (this.#issued[kind] += 1));
    events.on('issuanceFailed', ({ kind }) => void (this.#failed[kind] += 1));
  }

  /** How often something was refused for `reason`. */
  refused(reason: RefusalReason): number {
    return this.#refused.get(reason) ?? 0;
  }

  issued(kind: 'x509' | 'jwt'): number {
    return this.#issued[kind];
  }

  failed(kind: 'x509' | 'jwt'): number {
    return this.#failed[kind];
  }
}
