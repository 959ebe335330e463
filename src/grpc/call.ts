import type { Alarm, Clock } from '../clock.ts';
import { Code } from '../http2/frames.ts';
import type { RequestHead } from '../http2/request-head.ts';
import type { RequestReader, RequestStream } from '../http2/stream.ts';
import type { Message } from './message.ts';
import { MessageReader } from './message-reader.ts';
import { CallFault, OK_TRAILERS, RESPONSE_HEAD, Status, trailersOf, trailersOnly, type CallStatus } from './status.ts';
import { readTimeout } from './timeout.ts';

/** How many requests a method takes and how many answers it gives. */
export type MethodKind = 'unary' | 'server-stream' | 'exchange';

export interface Method<C> {
  readonly kind: MethodKind;
  /**
   * Begins a call. `unary`, `server-stream`: its request has come. `exchange`: the first of them; the others go to `call.onMessage`.
   * The request is good during the call only.
   *
   * @throws {CallFault} the call ends so.
   */
  handle(call: ServerCall<C>, request: Buffer): void;
}

/** Of one exchange, messages that have come and are not answered yet. */
const MOST_WAITING = 16;

export interface CallOptions {
  readonly messageBytes: number;
  readonly clock: Clock;
  /** Told of whatever a method throws that is no fault of the caller. */
  readonly onMistake: (error: unknown) => void;
  /** Told why a call ends that its caller has made in a way that is not allowed. */
  readonly onRefused: (detail: string) => void;
  /** How a call ends whose answer would have to wait for its reader, and has no room to do so; and who is told. */
  readonly noRoom: CallStatus;
  readonly onNoRoom: () => void;
}

/** One call, on the server's side. `C`: whose connection it came over. Without a method it is only to be refused. */
export class ServerCall<C> implements RequestReader {
  readonly connection: C;
  readonly path: string;
  readonly kind: MethodKind;
  /** Asked once the request is complete. */
  onArrived: (() => void) | undefined;
  readonly #stream: RequestStream;
  readonly #head: RequestHead;
  readonly #method: Method<C> | undefined;
  readonly #options: CallOptions;
  readonly #messages: MessageReader;
  #closedListeners: (() => void)[] | undefined;
  #request: Buffer | undefined;
  #kept = 0;
  #waiting: Buffer[] = [];
  #hasBegun = false;
  #hasArrived = false;
  #hasHead = false;
  #isTaking = false;
  #alarm: Alarm | undefined;

  constructor(stream: RequestStream, head: RequestHead, method: Method<C> | undefined, connection: C, options: CallOptions) {
    this.connection = connection;
    this.path = head.path;
    this.kind = method?.kind ?? 'unary';
    this.#stream = stream;
    this.#head = head;
    this.#method = method;
    this.#options = options;
    this.#messages = new MessageReader(options.messageBytes);
  }

  /** True when nothing can be said any more. */
  get isOver(): boolean {
    return !this.#stream.isWritable;
  }

  /** The values of a field, in their order. */
  metadata(name: string): readonly string[] {
    const values: string[] = [];
    for (const field of this.#head.fields) if (field.name === name) values.push(field.value);
    return values;
  }

  /** Calls `listener` once, when the call is over on both sides, or its connection is closed. */
  onClosed(listener: () => void): void {
    (this.#closedListeners ??= []).push(listener);
  }

  /** Ends the call with `message` as its one answer. */
  answer(message: Message): void {
    this.#alarm?.cancel();
    if (!this.#stream.sendWhole(message.answer)) this.#noRoom();
  }

  /** Sends one message of several. `done` is called when it has been handed to the socket. */
  send(message: Message, done?: () => void): void {
    if (!this.#hasHead) this.#stream.sendFields(RESPONSE_HEAD, false);
    this.#hasHead = true;
    if (!this.#stream.sendData(message.bytes, done)) this.#noRoom();
  }

  /** Ends the call after what was sent. */
  finish(): void {
    this.#alarm?.cancel();
    if (!this.#hasHead) this.#stream.sendFields(RESPONSE_HEAD, false);
    this.#stream.sendFields(OK_TRAILERS, true);
  }

  /** Ends the call with anything but OK. */
  refuse(status: CallStatus): void {
    this.#alarm?.cancel();
    this.#stream.sendFields(this.#hasHead ? trailersOf(status) : trailersOnly(status), true);
  }

  /** In an exchange: the last message was answered, the next one may come. */
  next(): void {
    this.#isTaking = false;
    this.#takeOne();
  }

  data(chunk: Buffer, isLast: boolean): void {
    if (!this.#stream.isWritable) return;
    this.#guarded(() => {
      for (const message of this.#messages.read(chunk)) {
        if (this.kind === 'exchange') this.#queue(message);
        else if (this.#request === undefined) this.#request = isLast ? message : Buffer.from(message);
        else throw new CallFault(Status.unimplemented, `Received a second request message for method ${shown(this.path)}`);
      }
    });
    this.#account();
  }

  end(): void {
    this.#hasArrived = true;
    this.onArrived?.();
    if (!this.#stream.isWritable) return;
    this.#guarded(() => {
      if (this.kind === 'exchange') return this.#takeOne();
      const request = this.#request;
      if (request === undefined || this.#messages.bytes > 0) {
        throw new CallFault(Status.unimplemented, `Received no request message for method ${shown(this.path)}`);
      }
      this.#request = undefined;
      const timeout = this.#timeout();
      this.#begin(request);
      this.#limit(timeout);
      this.#account();
    });
  }

  closed(): void {
    this.#alarm?.cancel();
    const listeners = this.#closedListeners;
    this.#closedListeners = undefined;
    if (listeners !== undefined) for (const listener of listeners) listener();
  }

  /** Its owner has too much that is not read. */
  #noRoom(): void {
    this.#options.onNoRoom();
    this.refuse(this.#options.noRoom);
  }

  #begin(request: Buffer): void {
    this.#hasBegun = true;
    this.#method?.handle(this, request);
  }

  #queue(message: Buffer): void {
    this.#waiting.push(Buffer.from(message));
    if (this.#waiting.length > MOST_WAITING) {
      this.#options.onRefused(`more than ${MOST_WAITING} messages of one call at once`);
      return this.#stream.reset(Code.enhanceYourCalm);
    }
    if (!this.#hasBegun) this.#limit(this.#timeout());
    this.#takeOne();
  }

  /** In an exchange messages are answered one after the other. */
  #takeOne(): void {
    if (this.#isTaking || this.isOver) return;
    const message = this.#waiting.shift();
    if (message === undefined) {
      if (this.#hasArrived) this.finish();
      return;
    }
    this.#isTaking = true;
    this.#guarded(() => this.#begin(message));
    this.#account();
  }

  /** A call ends with whatever is thrown in it; its connection goes on. */
  #guarded(step: () => void): void {
    try {
      step();
    } catch (error) {
      if (error instanceof CallFault) {
        this.#options.onRefused(error.message);
        return this.refuse(error.status);
      }
      this.#options.onMistake(error);
      this.refuse({ code: Status.unavailable, details: 'the agent could not answer' });
    }
  }

  #timeout(): number | undefined {
    for (const { name, value } of this.#head.fields) if (name === 'grpc-timeout') return readTimeout(value);
    return undefined;
  }

  /** The deadline of the caller. One who was answered at once needs no alarm. */
  #limit(timeoutMs: number | undefined): void {
    if (timeoutMs === undefined || this.isOver) return;
    const late = (): void => this.refuse({ code: Status.deadlineExceeded, details: 'Deadline exceeded' });
    if (timeoutMs < 1) late();
    else this.#alarm = this.#options.clock.after(timeoutMs, late);
  }

  #account(): void {
    let kept = this.#messages.bytes;
    if (this.#request !== undefined) kept += this.#request.length;
    for (const { length } of this.#waiting) kept += length;
    if (kept === this.#kept || this.isOver) return;
    if (this.#stream.keep(kept - this.#kept)) {
      this.#kept = kept;
      return;
    }
    this.#options.onRefused('more bytes of unfinished requests than one owner may have');
    this.#stream.reset(Code.enhanceYourCalm);
  }
}

const LONGEST_SHOWN = 256;

/** A path as it may stand in an answer. */
export function shown(path: string): string {
  return path.slice(0, LONGEST_SHOWN);
}
