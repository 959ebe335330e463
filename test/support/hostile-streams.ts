import { data, headers } from './http2-wire.ts';
import {
  call, callBlock, FETCH_JWT, FETCH_X509, HEALTH_WATCH, HostileConnection, inParallel, jwtRequest, newHeard, protoField, REFLECT, untilQuiet,
  type Heard, type OpenOptions, type Target,
} from './hostile-wire.ts';

/** MAX_CONCURRENT_STREAMS of the agent, by its default configuration. */
const STREAMS = 256;

/** What each of an attack's streams sends. */
type StreamBytes = (stream: number, index: number) => Buffer;

const LONGEST_FRAME = 16_384;

/** The prefix of a message of 128 KiB, and its beginning. */
const UNFINISHED = Buffer.concat([Buffer.from([0, 0, 2, 0, 0]), Buffer.alloc(LONGEST_FRAME - 5)]);

/** As many streams as a connection may have, on `connections` of them. */
async function occupy(target: Target, connections: number, options: OpenOptions, bytes: StreamBytes): Promise<{ heard: Heard; all: HostileConnection[] }> {
  const heard = newHeard();
  const all = await inParallel(connections, 4, async (place) => {
    const connection = await HostileConnection.open(target.socketPath, options, heard);
    const parts = Array.from({ length: STREAMS }, (_, index) => bytes(connection.stream(), place * STREAMS + index));
    for (let at = 0; at < STREAMS; at += 8) await connection.send(...parts.slice(at, at + 8));
    return connection;
  });
  return { heard, all };
}

function longAudiences(count: number, seed: number): string[] {
  return Array.from({ length: count }, (_, at) => `${seed}-${at}-${'x'.repeat(2_000)}`);
}

function ended(heard: Heard): number {
  return [heard.endings, heard.resets].flatMap((counts) => Object.values(counts)).reduce((sum, count) => sum + count, 0);
}

/** Attacks with streams and calls. Each resolves once it holds, with what it was told. */
export const streamAttacks = {
  /** Streams of one connection, all sent at once, more than it may have. */
  tenThousandStreams: async ({ socketPath, count = 10_000 }: Target) => {
    const connection = await HostileConnection.open(socketPath);
    for (let sent = 0; sent < count && connection.isOpen; sent += 100) {
      await connection.send(...Array.from({ length: 100 }, () => call(connection.stream(), FETCH_X509)));
    }
    await connection.until(() => !connection.isOpen, 2_000);
    return { ...connection.heard, open: connection.isOpen };
  },

  /** Calls of one connection, all sent at once. */
  twoThousandCalls: async ({ socketPath, count = 2_000 }: Target) => {
    const connection = await HostileConnection.open(socketPath);
    await connection.send(...Array.from({ length: count }, (_, index) => call(connection.stream(), FETCH_JWT, jwtRequest(`audience-${index}`))));
    await connection.until(() => ended(connection.heard) >= count, 2_000);
    return { ...connection.heard, open: connection.isOpen };
  },

  /** As many calls, by a client that keeps to the number of streams that it was told. */
  politeCalls: async ({ socketPath, count = 2_000 }: Target) => {
    const connection = await HostileConnection.open(socketPath);
    for (let sent = 0; sent < count; sent += STREAMS) {
      const calls = Array.from({ length: Math.min(STREAMS, count - sent) }, (_, index) => call(connection.stream(), FETCH_JWT, jwtRequest(`audience-${sent + index}`)));
      await connection.send(...calls);
      await connection.until(() => ended(connection.heard) >= sent + calls.length);
    }
    return { ...connection.heard };
  },

  /** Streams and answers for which there is no window. */
  zeroWindow: async (target: Target) => {
    const { heard } = await occupy(target, 8, { zeroWindow: true }, (stream, index) =>
      index % 2 === 0 ? call(stream, FETCH_X509) : call(stream, FETCH_JWT, jwtRequest(`audience-${index}`)),
    );
    await untilQuiet(() => heard.bytes);
    return { ...heard };
  },

  /** Answers as long as they can be, for which there is no window. */
  unreadAnswers: async (target: Target) => {
    const { heard } = await occupy(target, 8, { zeroWindow: true }, (stream, index) => call(stream, FETCH_JWT, jwtRequest(...longAudiences(31, index % 100))));
    await untilQuiet(() => heard.bytes);
    return { ...heard };
  },

  /** Calls whose answers nobody takes from the socket. */
  deaf: async (target: Target) => {
    const { all } = await occupy(target, 7, { reads: false, zeroWindow: true }, (stream, index) => call(stream, FETCH_JWT, jwtRequest(`audience-${index}`)));
    return { connections: all.length };
  },

  /** Requests that do not end. */
  neverHalfClosed: async (target: Target) => {
    const { heard, all } = await occupy(target, 2, {}, (stream) => call(stream, FETCH_JWT, jwtRequest('a'), true));
    await all[0]?.until(() => ended(heard) >= 2 * 2 * STREAMS, 15_000);
    return { ...heard };
  },

  /** Requests that do not even begin. */
  headersOnly: async (target: Target) => {
    const { heard, all } = await occupy(target, 2, {}, (stream) => headers(stream, callBlock(FETCH_X509)));
    await all[0]?.until(() => ended(heard) >= 2 * 2 * STREAMS, 15_000);
    return { ...heard };
  },

  /** More calls than an owner may have, none of which the caller ends: the agent must give back the streams that it has refused. */
  refusedHalfOpen: async (target: Target) => {
    const { heard, all } = await occupy(target, 60, {}, (stream) => call(stream, FETCH_JWT, jwtRequest('a'), true));
    await all[0]?.until(() => ended(heard) >= 2 * 52 * STREAMS, 10_000);
    return { ...heard };
  },

  /** Thousands of empty messages in each request. */
  tinyMessages: async (target: Target) => {
    const paths = [REFLECT, FETCH_JWT, FETCH_X509];
    const { heard, all } = await occupy(target, 6, { zeroWindow: true }, (stream, index) =>
      Buffer.concat([headers(stream, callBlock(paths[index % paths.length] ?? REFLECT)), data(stream, Buffer.alloc(LONGEST_FRAME))]),
    );
    await all[0]?.until(() => ended(heard) - (heard.resets['0'] ?? 0) >= 6 * STREAMS, 5_000);
    return { ...heard };
  },

  /** The beginning of the largest request, on every call that there is. */
  unfinishedRequests: async (target: Target) => {
    const { heard, all } = await occupy(target, 8, {}, (stream) =>
      Buffer.concat([headers(stream, callBlock(FETCH_JWT)), data(stream, UNFINISHED), ...Array.from({ length: 3 }, () => data(stream, Buffer.alloc(LONGEST_FRAME)))]),
    );
    await all[0]?.until(() => (heard.resets['11'] ?? 0) > 0, 5_000);
    await untilQuiet(() => heard.bytes);
    return { ...heard };
  },

  /** Questions whose answers are not read. */
  reflectionFlood: async (target: Target) => {
    const question = Buffer.from([0, 0, 0, 0, 3, 0x3a, 1, 0x2a]);
    const few = Buffer.concat(Array.from({ length: 10 }, () => question));
    const { heard } = await occupy(target, 8, { zeroWindow: true }, (stream) =>
      Buffer.concat([headers(stream, callBlock(REFLECT)), data(stream, few), data(stream, UNFINISHED), data(stream, Buffer.alloc(LONGEST_FRAME))]),
    );
    await untilQuiet(() => heard.bytes);
    return { ...heard };
  },

  /** A watch for each of 10,000 names. */
  healthWatches: async (target: Target) => {
    const { heard, all } = await occupy(target, 40, {}, (stream, index) => call(stream, HEALTH_WATCH, protoField(1, `service-${index}`)));
    await all[0]?.until(() => heard.messages + ended(heard) - (heard.resets['0'] ?? 0) >= 40 * STREAMS, 5_000);
    return { ...heard };
  },

  /** Headers as long as they may be, kept by calls that do not end. */
  longHeaders: async (target: Target) => {
    const block = callBlock(FETCH_JWT, [['workload.spiffe.io', 'true'], ['x-filler', 'b'.repeat(14_000)]]);
    const { heard } = await occupy(target, 6, {}, (stream) => headers(stream, block));
    await untilQuiet(() => heard.bytes);
    return { ...heard };
  },
};
