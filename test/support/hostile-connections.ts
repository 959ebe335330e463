import { FrameType, PREFACE, settingsFrame } from '../../src/http2/frames.ts';
import { frame, headers, SETTINGS_ACK } from './http2-wire.ts';
import { call, callBlock, FETCH_X509, HEALTH_CHECK, HostileConnection, inParallel, newHeard, reset, untilQuiet, waitUntil, type Target } from './hostile-wire.ts';

/** Attacks with connections. Each resolves once it holds, with what it was told; its connections stay open until its process ends. */
export const connectionAttacks = {
  /** Connections that never say anything. */
  silent: async ({ socketPath, count = 1_000 }: Target) => {
    const all = await inParallel(count, 50, () => HostileConnection.connect(socketPath));
    return { connected: all.length };
  },

  /** Connections that have made one call and then say nothing more. */
  idle: async ({ socketPath, count = 1_000 }: Target) => {
    const heard = newHeard();
    const all = await inParallel(count, 20, async () => {
      const connection = await HostileConnection.open(socketPath, {}, heard);
      await connection.send(call(connection.stream(), HEALTH_CHECK));
      return connection;
    });
    await all[0]?.until(() => (heard.endings['0 OK'] ?? 0) === count);
    return { ...heard, open: openOf(all) };
  },

  /** One octet after another, never a request. Resolves when the agent has closed them all. */
  slowloris: async ({ socketPath, count = 200 }: Target) => {
    const hello = Buffer.concat([PREFACE, settingsFrame([]), SETTINGS_ACK, headers(1, callBlock(FETCH_X509))]);
    const all = await inParallel(count, 50, () => HostileConnection.connect(socketPath));
    const deadline = Date.now() + 15_000;
    for (let at = 0; at < hello.length && openOf(all) > 0 && Date.now() < deadline; at += 1) {
      for (const connection of all) connection.socket.write(hello.subarray(at, at + 1));
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    for (const connection of all) connection.socket.resume();
    await waitUntil(() => openOf(all) === 0, 10_000);
    return { open: openOf(all) };
  },

  /** As much as is kept before the first request: a header frame that lacks its last octet. */
  fullPreludes: async ({ socketPath, count = 1_500 }: Target) => {
    const filler = frame(FrameType.headers, 0, 1, Buffer.alloc(16_384)).subarray(0, -1);
    const all = await inParallel(count, 20, async () => {
      const connection = await HostileConnection.connect(socketPath);
      await connection.send(PREFACE, settingsFrame([]), filler);
      return connection;
    });
    return { connected: all.length };
  },

  /** More connections than anybody may have. */
  crowd: async ({ socketPath, count = 5_000 }: Target) => {
    const all = await inParallel(count, 100, async () => {
      const connection = await HostileConnection.connect(socketPath);
      connection.socket.resume();
      return connection;
    });
    // The agent closes what is too much as fast as it accepts: it is done when nothing changes any more.
    await untilQuiet(() => openOf(all));
    return { connected: all.length, open: openOf(all) };
  },

  /** Callers that go away at every stage: before a word, in the preface, in the headers, in the message, before the answer. */
  dying: async ({ socketPath, count = 2_000 }: Target) => {
    const hello = Buffer.concat([PREFACE, settingsFrame([]), SETTINGS_ACK, call(1, FETCH_X509), reset(1), call(3, FETCH_X509)]);
    await inParallel(count, 20, async (index) => {
      const connection = await HostileConnection.connect(socketPath);
      await connection.send(hello.subarray(0, (index * 7) % (hello.length + 1)));
      if (index % 2 === 0) connection.socket.end();
      connection.destroy();
    });
    return { connected: count };
  },

  /** Not HTTP/2, or not as a client says it. Resolves when the agent has closed them all. */
  garbage: async ({ socketPath, count = 200 }: Target) => {
    const greetings = [
      'GET / HTTP/1.1\r\nhost: localhost\r\n\r\n', '\u0016\u0003\u0001\u0002\u0000\u0001', '\0'.repeat(100), 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n' + '\u00ff'.repeat(64),
    ];
    const all = await inParallel(count, 20, async (index) => {
      const connection = await HostileConnection.connect(socketPath);
      connection.socket.resume();
      await connection.send(Buffer.from(greetings[index % greetings.length] ?? '', 'latin1'));
      return connection;
    });
    await waitUntil(() => openOf(all) === 0, 10_000);
    return { open: openOf(all) };
  },
};

function openOf(connections: readonly HostileConnection[]): number {
  return connections.filter((connection) => connection.isOpen).length;
}
