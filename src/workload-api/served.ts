import type { Clock } from '../clock.ts';
import type { EventBus, SvidKind } from '../events.ts';
import type { Message } from '../grpc/message.ts';
import type { Connection } from '../listener/connection.ts';
import { whoOf } from '../listener/who.ts';
import type { JwtSvid } from '../spiffe/svid.ts';
import { servedIn } from './feeds.ts';

/** What one call is given, as facts. Made when the call begins. */
export class Served {
  readonly #method: string;
  readonly #connection: Connection;
  readonly #tools: { readonly events: EventBus; readonly clock: Clock };
  #acceptedAt: number | undefined;

  constructor(method: string, connection: Connection, tools: { readonly events: EventBus; readonly clock: Clock }) {
    this.#method = method;
    this.#connection = connection;
    this.#tools = tools;
    this.#acceptedAt = connection.takeAcceptedAt();
  }

  /** A state was written to a stream. */
  state(state: Message): void {
    const svids = servedIn(state);
    if (svids.length === 0) return;
    this.#first('x509');
    this.#tools.events.publish('served', { kind: 'x509', method: this.#method, svids, ...whoOf(this.#connection.caller) });
  }

  /** Tokens were given as an answer: thousands in a second, so nothing is made for nobody. */
  tokens(tokens: readonly JwtSvid[]): void {
    this.#first('jwt');
    const { events } = this.#tools;
    if (!events.isHeard('served')) return;
    const svids = tokens.map(({ id, expiresAt }) => ({ spiffeId: id, notAfter: expiresAt }));
    events.publish('served', { kind: 'jwt', method: this.#method, svids, ...whoOf(this.#connection.caller) });
  }

  #first(kind: SvidKind): void {
    if (this.#acceptedAt === undefined) return;
    const durationMs = this.#tools.clock.monotonic() - this.#acceptedAt;
    this.#acceptedAt = undefined;
    this.#tools.events.publish('firstSvid', { kind, durationMs });
  }
}
