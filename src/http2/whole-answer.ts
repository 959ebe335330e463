import { Flag, frameOf, FrameType, MAX_FRAME_BYTES } from './frames.ts';

const STREAM_ID_AT = 5;

/** An answer from its head to its trailers, made once for whoever asks: only the number of the stream is another one each time. */
export class WholeAnswer {
  readonly head: Buffer;
  readonly body: Buffer;
  readonly trailers: Buffer;
  #frames: Buffer | undefined;

  /** `head` and `trailers` are encoded lists of fields. */
  constructor(head: Buffer, body: Buffer, trailers: Buffer) {
    this.head = head;
    this.body = body;
    this.trailers = trailers;
  }

  get bodyBytes(): number {
    return this.body.length;
  }

  get isOneFrame(): boolean {
    return this.body.length <= MAX_FRAME_BYTES;
  }

  /** HEADERS, DATA and the HEADERS with the trailers. */
  framesFor(streamId: number): Buffer {
    const frames = (this.#frames ??= this.#encode());
    const out = Buffer.allocUnsafe(frames.length);
    frames.copy(out);
    const second = 9 + this.head.length;
    out.writeUInt32BE(streamId, STREAM_ID_AT);
    out.writeUInt32BE(streamId, second + STREAM_ID_AT);
    out.writeUInt32BE(streamId, second + 9 + this.body.length + STREAM_ID_AT);
    return out;
  }

  #encode(): Buffer {
    return Buffer.concat([
      frameOf(FrameType.headers, Flag.endHeaders, 0, this.head),
      frameOf(FrameType.data, 0, 0, this.body),
      frameOf(FrameType.headers, Flag.endHeaders | Flag.endStream, 0, this.trailers),
    ]);
  }
}
