import { Flag, FRAME_HEADER_BYTES, frameOf, FrameType, MAX_FRAME_BYTES } from './frames.ts';

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

  /** How many bytes its frames have. */
  get length(): number {
    return (this.#frames ??= this.#encode()).length;
  }

  /** Writes HEADERS, DATA and the HEADERS with the trailers, for a stream, to `target` at `at`. */
  writeFrames(target: Buffer, at: number, streamId: number): void {
    const frames = (this.#frames ??= this.#encode());
    frames.copy(target, at);
    const data = at + FRAME_HEADER_BYTES + this.head.length;
    target.writeUInt32BE(streamId, at + STREAM_ID_AT);
    target.writeUInt32BE(streamId, data + STREAM_ID_AT);
    target.writeUInt32BE(streamId, data + FRAME_HEADER_BYTES + this.body.length + STREAM_ID_AT);
  }

  #encode(): Buffer {
    return Buffer.concat([
      frameOf(FrameType.headers, Flag.endHeaders, 0, this.head),
      frameOf(FrameType.data, 0, 0, this.body),
      frameOf(FrameType.headers, Flag.endHeaders | Flag.endStream, 0, this.trailers),
    ]);
  }
}
