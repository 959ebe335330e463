import { WholeAnswer } from '../http2/whole-answer.ts';
import { OK_TRAILERS, RESPONSE_HEAD } from './status.ts';

const PREFIX_BYTES = 5;

/** A message as it stands on the wire (gRPC over HTTP/2, Length-Prefixed-Message), made once whoever gets it. */
export class Message {
  /** The prefix and the encoded message. */
  readonly bytes: Buffer;
  #answer: WholeAnswer | undefined;

  /** `content`: the encoded message. */
  constructor(content: Buffer) {
    this.bytes = Buffer.allocUnsafe(PREFIX_BYTES + content.length);
    this.bytes[0] = 0;
    this.bytes.writeUInt32BE(content.length, 1);
    content.copy(this.bytes, PREFIX_BYTES);
  }

  /** The encoded message without its prefix. */
  get content(): Buffer {
    return this.bytes.subarray(PREFIX_BYTES);
  }

  /** The whole answer of a call that has this message as its only one. */
  get answer(): WholeAnswer {
    return (this.#answer ??= new WholeAnswer(RESPONSE_HEAD, this.bytes, OK_TRAILERS));
  }

  equals(other: Message): boolean {
    return this === other || this.bytes.equals(other.bytes);
  }
}
