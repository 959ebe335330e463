import type { ServerWritableStream } from '@grpc/grpc-js';
import type { Connection } from '../listener/connection.ts';
import { refusalOf, type Refusal } from './status.ts';

/** The side of one response stream that writes. */
export type Writable = Pick<ServerWritableStream<unknown, Buffer>, 'write' | 'emit' | 'on' | 'cancelled'>;

/**
 * Writes the newest state to one stream. While the reader has not taken the last message nothing is written; when it has, it gets
 * the state of that moment. So a reader that has stopped costs one message, however long it sleeps.
 */
export class StateStream {
  readonly #call: Writable;
  readonly #connection: Connection;
  readonly #beforeWrite: () => void;
  readonly #onRefused: (refusal: Refusal, error?: unknown) => void;
  readonly #onWritten: (state: Buffer) => void;
  readonly #flushBound = (): void => this.#flush();
  #newest: Buffer | undefined;
  #sent: Buffer | undefined;
  #isWriting = false;
  #hasEnded = false;

  /** `beforeWrite` throws when nothing may be written to this caller any more; `onWritten` is told what was. */
  constructor(
    call: Writable,
    connection: Connection,
    beforeWrite: () => void,
    onRefused: (refusal: Refusal, error?: unknown) => void,
    onWritten: (state: Buffer) => void = () => undefined,
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

  /** Makes `state` what the reader should have. The same bytes twice are written once. */
  offer(state: Buffer): void {
    this.#newest = state;
    this.#flush();
  }

  /** Ends the stream with a status, which the reader finds after what it has not read yet. */
  refuse(refusal: Refusal, error?: unknown): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#onRefused(refusal, error);
    this.#call.emit('error', { code: refusal.code, details: refusal.details });
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

  #write(state: Buffer): void {
    try {
      this.#beforeWrite();
    } catch (error) {
      return this.refuse(refusalOf(error), error);
    }
    this.#isWriting = true;
    this.#sent = state;
    this.#call.write(state, () => {
      this.#isWriting = false;
      this.#flush();
    });
    this.#onWritten(state);
  }
}
