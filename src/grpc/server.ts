import type { Clock } from '../clock.ts';
import type { RequestHead } from '../http2/request-head.ts';
import type { RequestReader, RequestStream } from '../http2/stream.ts';
import { ServerCall, shown, type CallOptions, type Method } from './call.ts';
import { httpStatus, Status, trailersOnly, type CallStatus } from './status.ts';

export interface ServerOptions<C> {
  /** By path: `/package.Service/Method`. */
  readonly methods: ReadonlyMap<string, Method<C>>;
  /** The longest request, in bytes. */
  readonly messageBytes: number;
  readonly clock: Clock;
  /** Asked before anything is done for a call: how it ends when there is no place for it. */
  readonly admit: (call: ServerCall<C>) => CallStatus | undefined;
  /** How a call ends whose answer would have to wait for its reader, and has no room to do so; and who is told. */
  readonly noRoom: CallStatus;
  readonly onNoRoom: (connection: C, path: string) => void;
  /** Told why a call ends that its caller has made in a way that is not allowed. */
  readonly onRefused: (connection: C, path: string, detail: string) => void;
  /** Told of whatever a method throws that is no fault of the caller. */
  readonly onMistake: (error: unknown) => void;
}

const UNSUPPORTED_MEDIA_TYPE = httpStatus(415);
const METHOD_NOT_ALLOWED = httpStatus(405);

/** gRPC over HTTP/2, of which a connection is the caller's part (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md). */
export class GrpcServer<C extends object> {
  readonly #options: ServerOptions<C>;
  /** The same for all calls of a connection. */
  readonly #callOptions = new WeakMap<C, CallOptions>();

  constructor(options: ServerOptions<C>) {
    this.#options = options;
  }

  /** A request has come over `connection`. */
  request(connection: C, stream: RequestStream, head: RequestHead): RequestReader {
    const method = this.#options.methods.get(head.path);
    const call = new ServerCall(stream, head, method, connection, this.#callOptionsOf(connection));
    const refused = this.#options.admit(call);
    if (refused !== undefined) stream.sendFields(trailersOnly(refused), true);
    else if (head.method !== 'POST') stream.sendFields(METHOD_NOT_ALLOWED, true);
    else if (!isGrpc(call.metadata('content-type'))) stream.sendFields(UNSUPPORTED_MEDIA_TYPE, true);
    else if (method === undefined) stream.sendFields(trailersOnly(unimplemented(head.path)), true);
    return call;
  }

  #callOptionsOf(connection: C): CallOptions {
    let options = this.#callOptions.get(connection);
    if (options === undefined) {
      const { messageBytes, clock, onMistake, onRefused, noRoom, onNoRoom } = this.#options;
      options = {
        messageBytes, clock, onMistake, noRoom,
        onRefused: (detail, path) => onRefused(connection, path, detail),
        onNoRoom: (path) => onNoRoom(connection, path),
      };
      this.#callOptions.set(connection, options);
    }
    return options;
  }
}

function unimplemented(path: string): CallStatus {
  return { code: Status.unimplemented, details: `The server does not implement the method ${shown(path)}` };
}

function isGrpc([type = '']: readonly string[]): boolean {
  return type === 'application/grpc' || type.startsWith('application/grpc+') || type.startsWith('application/grpc;');
}
