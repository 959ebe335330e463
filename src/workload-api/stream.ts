import type { ServerCall } from '../grpc/call.ts';
import type { Message } from '../grpc/message.ts';
import type { Connection } from '../listener/connection.ts';
import { refusalOf, type Refusal } from './status.ts';

/** The side of one response stream that writes. */
export type Writable = Pick<ServerCall<unknown>, 'send' | 'refuse'>;

/**
 * Writes the newest state to one stream. While the reader has not taken the last message nothing is written; when it has, it gets
 * the state of that moment. So a reader that has stopped costs one message, however long it sleeps.
 */
export class StateStream {
  readonly #call: Writable;
  readonly #connection: Connection;
  readonly #beforeWrite: () => void;
  readonly #onRefused: (refusal: Refusal, error?: unknown) => void;
  readonly #onWritten: (state: Message) => void;
  readonly #flushBound = (): void => this.#flush();
  #newest: Message | undefined;
  #sent: Message | undefined;
  #isWriting = false;
  #hasEnded = false;

  /** `beforeWrite` throws when nothing may be written to this caller any more; `onWritten` is told what was. */
  constructor(
    call: Writable,
    connection: Connection,
    beforeWrite: () => void,
    onRefused: (refusal: Refusal, error?: unknown) => void,
    onWritten: (state: Message) => void = () => undefined,
  ) {
    this.#call = call;
    this.#connection = connection;
    this.#beforeWrite = beforeWrite;
    this.#onRefused = onRefused;
    this.#onWritten = onWritten;
  }

  /** True once a state was handed over for writing. */
  get hasState(): boolean {
    return this.#newest !== undefined;
  }

  /** Makes `state` what the reader should have. The same message twice is written once. */
  offer(state: Message): void {
    this.#newest = state;
    this.#flush();
  }

  /** Ends the stream with a status, which the reader finds after what it has not read yet. */
  refuse(refusal: Refusal, error?: unknown): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#onRefused(refusal, error);
    this.#call.refuse(refusal);
  }

  /** The call is over: nothing is written any more. */
  end(): void {
    this.#hasEnded = true;
  }

  #flush(): void {
    const state = this.#newest;
    if (this.#hasEnded || this.#isWriting || state === undefined || state === this.#sent) return;
    if (this.#sent !== undefined) {
      if (this.#sent.equals(state)) {
        this.#sent = state;
        return;
      }
      // The first message is never held back (WA-12); later ones wait until the reader has taken what it was sent.
      if (!this.#connection.isDrained) return this.#connection.whenDrained(this.#flushBound);
    }
    this.#write(state);
  }

  #write(state: Message): void {
    try {
      this.#beforeWrite();
    } catch (error) {
      return this.refuse(refusalOf(error), error);
    }
    this.#isWriting = true;
    this.#sent = state;
    const isSent = this.#call.send(state, () => {
      this.#isWriting = false;
      this.#flush();
    });
    if (isSent) this.#onWritten(state);
  }
}
