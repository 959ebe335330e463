import type { Alarm, Clock } from '../clock.ts';
import { Code } from '../http2/frames.ts';
import { ownCopy } from '../http2/gather.ts';
import type { HeaderField } from '../http2/hpack.ts';
import type { RequestHead } from '../http2/request-head.ts';
import type { RequestReader, RequestStream } from '../http2/stream.ts';
import type { Message } from './message.ts';
import { isOneMessage, MessageReader, PREFIX_BYTES } from './message-reader.ts';
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

/** Heads up to this size are counted as part of their call; most have some 300 bytes. */
const SMALL_HEAD_BYTES = 1_024;

/** A field beyond its name and value (RFC 9113 §6.5.2). */
const FIELD_BYTES = 32;

/** A deadline that is further away is none: 20 days, less than a timer of Node's can be set to. */
const LONGEST_TIMEOUT_MS = 20 * 24 * 3_600_000;

/** Of one exchange, messages that have come and are not answered yet. */
const MOST_WAITING = 16;

export interface CallOptions {
  readonly messageBytes: number;
  readonly clock: Clock;
  /** Told of whatever a method throws that is no fault of the caller. */
  readonly onMistake: (error: unknown) => void;
  /** Told why a call ends that its caller has made in a way that is not allowed. */
  readonly onRefused: (detail: string, path: string) => void;
  /** How a call ends whose answer would have to wait for its reader, and has no room to do so; and who is told. */
  readonly noRoom: CallStatus;
  readonly onNoRoom: (path: string) => void;
  /** Asked before each further message of an exchange is handled: how the call ends when it is one too many. */
  readonly admitNext: (path: string) => CallStatus | undefined;
}

/** Who counts calls. */
export interface CallWatcher<C> {
  /** The request is complete. */
  arrived(call: ServerCall<C>): void;
  /** The call is over on both sides, or its connection is closed. Told once. */
  closed(call: ServerCall<C>): void;
}

/** One call, on the server's side. `C`: whose connection it came over. Without a method it is only to be refused. */
export class ServerCall<C> implements RequestReader {
  readonly connection: C;
  /** As it was asked for, up to 256 characters. */
  readonly path: string;
  readonly kind: MethodKind;
  /** Told of this call's stages. Set before anything has come of the request. */
  watcher: CallWatcher<C> | undefined;
  readonly #stream: RequestStream;
  #fields: readonly HeaderField[];
  readonly #headBytes: number;
  readonly #method: Method<C> | undefined;
  readonly #options: CallOptions;
  /** Made when a message comes in pieces, or several in one. */
  #messages: MessageReader | undefined;
  #closedListeners: (() => void)[] | undefined;
  #request: Buffer | undefined;
  #kept = 0;
  #waiting = NO_MESSAGES;
  #hasBegun = false;
  #hasArrived = false;
  #hasHead = false;
  #isTaking = false;
  #alarm: Alarm | undefined;

  constructor(stream: RequestStream, head: RequestHead, method: Method<C> | undefined, connection: C, options: CallOptions) {
    this.connection = connection;
    this.path = shown(head.path);
    this.kind = method?.kind ?? 'unary';
    this.#stream = stream;
    this.#fields = head.fields;
    this.#headBytes = sizeOf(head.fields);
    this.#method = method;
    this.#options = options;
    if (this.#headBytes > 0) this.#account();
  }

  /** True when nothing can be said any more. */
  get isOver(): boolean {
    return !this.#stream.isWritable;
  }

  /** The values of a field, in their order. They are known until the first request has been handled. */
  metadata(name: string): readonly string[] {
    const values: string[] = [];
    for (const field of this.#fields) if (field.name === name) values.push(field.value);
    return values;
  }

  /** Calls `listener` once, when the call is over on both sides, or its connection is closed. */
  onClosed(listener: () => void): void {
    (this.#closedListeners ??= []).push(listener);
  }

  /** Ends the call with `message` as its one answer. */
  answer(message: Message): void {
    this.#letGo();
    if (!this.#stream.sendWhole(message.answer)) this.#noRoom();
  }

  /**
   * Sends one message of several. `done` is called when it has been handed to the socket. False when it will not be sent: the call is
   * over, or has no room and ends.
   */
  send(message: Message, done?: () => void): boolean {
    if (this.isOver) return false;
    if (!this.#hasHead) this.#stream.sendFields(RESPONSE_HEAD, false);
    this.#hasHead = true;
    if (this.#stream.sendData(message.bytes, done)) return true;
    this.#noRoom();
    return false;
  }

  /** Ends the call after what was sent. */
  finish(): void {
    this.#letGo();
    if (!this.#hasHead) this.#stream.sendFields(RESPONSE_HEAD, false);
    this.#stream.sendFields(OK_TRAILERS, true);
  }

  /** Ends the call with anything but OK. */
  refuse(status: CallStatus): void {
    this.#letGo();
    this.#stream.sendFields(this.#hasHead ? trailersOf(status) : trailersOnly(status), true);
  }

  /** In an exchange: the last message was answered, the next one may come. */
  next(): void {
    this.#isTaking = false;
    this.#takeOne();
  }

  data(chunk: Buffer, isLast: boolean): void {
    if (!this.#stream.isWritable) return;
    try {
      this.#take(chunk, isLast);
    } catch (error) {
      this.#fail(error);
    }
    this.#account();
  }

  end(): void {
    this.#hasArrived = true;
    this.watcher?.arrived(this);
    if (!this.#stream.isWritable) return;
    try {
      this.#endOfRequest();
    } catch (error) {
      this.#fail(error);
    }
  }

  closed(): void {
    this.#letGo();
    this.watcher?.closed(this);
    this.watcher = undefined;
    const listeners = this.#closedListeners;
    this.#closedListeners = undefined;
    if (listeners !== undefined) for (const listener of listeners) listener();
  }

  #take(chunk: Buffer, isLast: boolean): void {
    const { messageBytes } = this.#options;
    if (this.#messages === undefined && this.#request === undefined && this.kind !== 'exchange' && isOneMessage(chunk, messageBytes)) {
      const message = chunk.subarray(PREFIX_BYTES);
      this.#request = isLast ? message : ownCopy(message);
      return;
    }
    for (const message of (this.#messages ??= new MessageReader(messageBytes)).read(chunk)) {
      if (this.isOver) return;
      if (this.kind === 'exchange') this.#queue(message);
      else if (this.#request === undefined) this.#request = isLast ? message : ownCopy(message);
      else throw new CallFault(Status.unimplemented, `Received a second request message for method ${this.path}`);
    }
  }

  #endOfRequest(): void {
    if (this.kind === 'exchange') return this.#takeOne();
    const request = this.#request;
    if (request === undefined || (this.#messages?.bytes ?? 0) > 0) {
      throw new CallFault(Status.unimplemented, `Received no request message for method ${this.path}`);
    }
    this.#request = undefined;
    const timeout = this.#timeout();
    this.#begin(request);
    this.#limit(timeout);
    this.#account();
  }

  /** Nothing is asked any more. What was kept of the request must not wait for the answer to be read. */
  #letGo(): void {
    this.#alarm?.cancel();
    this.#fields = NONE;
    this.#request = undefined;
    this.#waiting = NO_MESSAGES;
    this.#messages?.clear();
  }

  /** Its owner has too much that is not read. */
  #noRoom(): void {
    this.#options.onNoRoom(this.path);
    this.refuse(this.#options.noRoom);
  }

  #begin(request: Buffer): void {
    this.#hasBegun = true;
    this.#method?.handle(this, request);
    this.#fields = NONE;
  }

  #queue(message: Buffer): void {
    if (this.#waiting.length >= MOST_WAITING) {
      this.#options.onRefused(`more than ${MOST_WAITING} messages of one call at once`, this.path);
      return this.#stream.reset(Code.enhanceYourCalm);
    }
    if (this.#waiting === NO_MESSAGES) this.#waiting = [];
    this.#waiting.push(ownCopy(message));
    if (!this.#hasBegun) this.#limit(this.#timeout());
    this.#takeOne();
  }

  /** In an exchange messages are answered one after the other. */
  #takeOne(): void {
    if (this.#isTaking || this.isOver) return;
    const message = this.#waiting === NO_MESSAGES ? undefined : this.#waiting.shift();
    if (message === undefined) {
      if (!this.#hasArrived) return;
      if ((this.#messages?.bytes ?? 0) === 0) return this.finish();
      return this.refuse({ code: Status.internal, details: 'the last request is not complete' });
    }
    const refused = this.#hasBegun ? this.#options.admitNext(this.path) : undefined;
    if (refused !== undefined) return this.refuse(refused);
    this.#isTaking = true;
    try {
      this.#begin(message);
    } catch (error) {
      this.#fail(error);
    }
    this.#account();
  }

  /** A call ends with whatever is thrown in it; its connection goes on. */
  #fail(error: unknown): void {
    if (error instanceof CallFault) {
      this.#options.onRefused(error.message, this.path);
      return this.refuse(error.status);
    }
    this.#options.onMistake(error);
    this.refuse({ code: Status.unavailable, details: 'the agent could not answer' });
  }

  #timeout(): number | undefined {
    for (const { name, value } of this.#fields) if (name === 'grpc-timeout') return readTimeout(value);
    return undefined;
  }

  /** The deadline of the caller. One who was answered at once needs no alarm. */
  #limit(timeoutMs: number | undefined): void {
    if (timeoutMs === undefined || timeoutMs > LONGEST_TIMEOUT_MS || this.isOver) return;
    const late = (): void => this.refuse({ code: Status.deadlineExceeded, details: 'Deadline exceeded' });
    if (timeoutMs < 1) late();
    else this.#alarm = this.#options.clock.after(timeoutMs, late);
  }

  #account(): void {
    let kept = this.#messages?.bytes ?? 0;
    if (this.#fields !== NONE) kept += this.#headBytes;
    if (this.#request !== undefined) kept += this.#request.length;
    for (const { length } of this.#waiting) kept += length;
    if (kept === this.#kept || this.isOver) return;
    if (this.#stream.keep(kept - this.#kept)) {
      this.#kept = kept;
      return;
    }
    this.#options.onRefused('more bytes of unfinished requests than one owner may have', this.path);
    this.#stream.reset(Code.enhanceYourCalm);
  }
}

const NONE: readonly HeaderField[] = [];
const NO_MESSAGES: Buffer[] = [];

/** What a list of fields counts as: nothing where it is small. */
function sizeOf(fields: readonly HeaderField[]): number {
  let bytes = 0;
  for (const { name, value } of fields) bytes += name.length + value.length + FIELD_BYTES;
  return bytes <= SMALL_HEAD_BYTES ? 0 : bytes;
}

const LONGEST_SHOWN = 256;

/** A path as it may stand in an answer. */
export function shown(path: string): string {
  return path.slice(0, LONGEST_SHOWN);
}
