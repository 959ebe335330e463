import { constants, type ServerHttp2Stream } from 'node:http2';
import { Duplex } from 'node:stream';
import type { ServerInterceptingCallInterface } from '@grpc/grpc-js';

/** Of one call, messages that have come and are not taken yet. Workload API calls have one; reflection is asked step by step. */
const MOST_WAITING = 16;

/** A flag and four bytes of length stand before each message (gRPC over HTTP/2, Length-Prefixed-Message). */
const PREFIX_BYTES = 5;

/** Room for what a call keeps in memory. */
export interface CallRoom {
  /** False when there is not enough. */
  hold(bytes: number): boolean;
  giveBack(bytes: number): void;
}

/**
 * The HTTP/2 stream under a call. grpc-js keeps both bounds of a request to itself: it decodes every message of a chunk before it
 * hands on the first, and a call that it has ended stays in memory for as long as the caller does not end its request.
 */
export class RequestStream {
  readonly #stream: ServerHttp2Stream;
  #room: CallRoom | undefined;
  /** Bytes of messages that are not taken yet, or of the answer. */
  #held = 0;
  #waiting = 0;
  #left = 0;
  #prefix = 0;
  #length = 0;

  constructor(call: ServerInterceptingCallInterface) {
    const stream: unknown = Reflect.get(call, 'stream');
    if (!(stream instanceof Duplex)) throw new TypeError('grpc-js no longer keeps the HTTP/2 stream of a call in "stream"');
    this.#stream = stream as ServerHttp2Stream;
  }

  /** From now on the stream is reset when too much waits; `onExcess` is told why first. To be asked before anything is read. */
  bound(room: CallRoom, onExcess: (detail: string) => void): void {
    this.#room = room;
    // Before grpc-js sees the chunk: it takes nothing from a stream that is closed. No flow begins by this.
    this.#stream.prependListener('data', (chunk: Buffer) => {
      if (this.#stream.closed || this.#room === undefined) return;
      const excess = this.#take(chunk);
      if (excess === undefined) return;
      onExcess(excess);
      this.#stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM);
    });
  }

  /** Takes room until the call has ended, or its last message was taken; false when there is not enough. */
  hold(bytes: number): boolean {
    // Of a call that is over nothing is kept.
    if (this.#room === undefined) return true;
    if (!this.#room.hold(bytes)) return false;
    this.#held += bytes;
    return true;
  }

  /** One message that waited was taken. */
  taken(): void {
    this.#waiting -= 1;
    if (this.#waiting === 0) this.#empty();
  }

  /** The call has ended. When the request has not, the stream is given back all the same (RFC 9113 §8.1). */
  release(): void {
    this.#empty();
    this.#room = undefined;
    setImmediate(() => {
      const { destroyed, closed, readableEnded } = this.#stream;
      if (!destroyed && !closed && !readableEnded) this.#stream.close(constants.NGHTTP2_NO_ERROR);
    });
  }

  /** What there is too much of, if anything. */
  #take(chunk: Buffer): string | undefined {
    this.#waiting += this.#messagesBegun(chunk);
    if (this.#waiting > MOST_WAITING) return `more than ${MOST_WAITING} messages of one call at once`;
    return this.hold(chunk.length) ? undefined : 'more bytes of unfinished requests than one owner may have';
  }

  #empty(): void {
    if (this.#held > 0) this.#room?.giveBack(this.#held);
    this.#held = 0;
  }

  #messagesBegun(chunk: Buffer): number {
    let begun = 0;
    let at = 0;
    while (at < chunk.length) {
      const skipped = Math.min(this.#left, chunk.length - at);
      this.#left -= skipped;
      at += skipped;
      if (at === chunk.length) break;
      if (this.#prefix === 0) begun += 1;
      else this.#length = this.#length * 256 + (chunk[at] ?? 0);
      at += 1;
      this.#prefix += 1;
      if (this.#prefix < PREFIX_BYTES) continue;
      this.#left = this.#length;
      this.#prefix = 0;
      this.#length = 0;
    }
    return begun;
  }
}
