import { Socket, type Server } from 'node:net';

/**
 * A connection that was accepted. What comes over it goes to `onBytes`, which is set before anything is read. When its peer says no more
 * ('end'), it is for its owner to end it too.
 */
export interface Incoming {
  readonly socket: Socket;
  /** The bytes are good during the call only. */
  onBytes: ((bytes: Buffer) => void) | undefined;
}

/** More than a client has a reason to say at once. */
const READ_BYTES = 65_536;

/**
 * All that comes over any connection is read into here and looked at before the next is read. Node's own way makes 64 KiB for each read
 * and leaves them to the garbage collector, which sees no reason to hurry.
 */
const readInto = Buffer.allocUnsafeSlow(READ_BYTES);

/** Connections that are accepted in one turn of the event loop, so that those who are there already are served too. */
const MOST_AT_ONCE = 64;

interface Handle {
  readonly fd: number;
  onconnection: (status: number, handle: unknown) => void;
}

/**
 * Takes the connections of a server that listens, in place of its 'connection' event. `net.Server` cannot be told to read into a given
 * buffer, as a `net.Socket` can (`onread`); its handle is private to Node, whose version is pinned. It also accepts one connection in each
 * turn of the event loop: whoever comes after a crowd would wait for as many turns.
 *
 * `next` takes the next connection that waits at a listening descriptor; `onError` is told of one that could not be accepted.
 */
export function takeConnections(
  server: Server,
  next: (fd: number) => number | undefined,
  accept: (incoming: Incoming) => void,
  onError: (error: Error) => void,
): void {
  const handle: unknown = Reflect.get(server, '_handle');
  if (!isHandle(handle)) throw new TypeError('Node no longer tells connections to the "onconnection" of a server\'s handle');
  handle.onconnection = (status, accepted) => {
    if (status !== 0 || accepted === undefined) return onError(new Error(`accept failed with status ${status}`));
    accept(incomingOf({ handle: accepted }));
    for (let more = 1; more < MOST_AT_ONCE; more += 1) {
      const fd = handle.fd < 0 ? undefined : next(handle.fd);
      if (fd === undefined) return;
      accept(incomingOf({ fd }));
    }
  };
}

/** `from`: the handle of a connection, or its descriptor. */
function incomingOf(from: { readonly handle: unknown } | { readonly fd: number }): Incoming {
  const callback = (length: number, bytes: Uint8Array): boolean => {
    incoming.onBytes?.(Buffer.from(bytes.buffer, bytes.byteOffset, length));
    return true;
  };
  const options = { ...from, readable: true, writable: true, allowHalfOpen: true, onread: { buffer: readInto, callback } };
  const incoming: Incoming = { socket: new Socket(options as ConstructorParameters<typeof Socket>[0]), onBytes: undefined };
  return incoming;
}

function isHandle(value: unknown): value is Handle {
  return typeof value === 'object' && value !== null && 'onconnection' in value && typeof value.onconnection === 'function' && 'fd' in value && typeof value.fd === 'number';
}
