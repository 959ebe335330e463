import type { Clock } from '../clock.ts';
import type { EventBus, SvidKind } from '../events.ts';
import type { Message } from '../grpc/message.ts';
import type { Connection } from '../listener/connection.ts';
import { whoOf } from '../listener/who.ts';
import type { JwtSvid } from '../spiffe/svid.ts';
import { servedIn } from './feeds.ts';

interface Tools {
  readonly events: EventBus;
  readonly clock: Clock;
}

/** To which call of which connection; `acceptedAt` of the connection, for its first call only. */
interface Given {
  readonly method: string;
  readonly connection: Connection;
  readonly acceptedAt: number | undefined;
}

/** What one stream is given, as facts. Made when it begins. */
export class Served {
  readonly #given: Given;
  readonly #tools: Tools;
  #isFirst = true;

  constructor(method: string, connection: Connection, tools: Tools) {
    this.#given = { method, connection, acceptedAt: connection.takeAcceptedAt() };
    this.#tools = tools;
  }

  /** A state was written to the stream. */
  state(state: Message): void {
    const svids = servedIn(state);
    if (svids.length === 0) return;
    if (this.#isFirst) tellFirst('x509', this.#given, this.#tools);
    this.#isFirst = false;
    const { method, connection } = this.#given;
    this.#tools.events.publish('served', { kind: 'x509', method, svids, ...whoOf(connection.caller) });
  }
}

/** Tokens were given as an answer: thousands in a second, so nothing is made for nobody. */
export function tellTokens(tokens: readonly JwtSvid[], given: Given, tools: Tools): void {
  tellFirst('jwt', given, tools);
  const { events } = tools;
  if (!events.isHeard('served')) return;
  const svids = tokens.map(({ id, expiresAt }) => ({ spiffeId: id, notAfter: expiresAt }));
  events.publish('served', { kind: 'jwt', method: given.method, svids, ...whoOf(given.connection.caller) });
}

function tellFirst(kind: SvidKind, { acceptedAt }: Given, { events, clock }: Tools): void {
  if (acceptedAt !== undefined) events.publish('firstSvid', { kind, durationMs: clock.monotonic() - acceptedAt });
}
