import test from 'ava';
import { Code, Flag, FrameType, PREFACE, resetFrame, Setting, settingsFrame, windowUpdateFrame } from '../../src/http2/frames.ts';
import { WholeAnswer } from '../../src/http2/whole-answer.ts';
import { CLIENT_SETTINGS, data, frame, grpcRequest, headers, WireClient, WireEncoder, type Frame } from '../support/http2-wire.ts';
import { HEAD, SessionServer, TRAILERS, type Open, type SessionServerOptions } from '../support/session-server.ts';

const request = (id: number, endStream = false): Buffer => headers(id, new WireEncoder().block(grpcRequest('/a/b')), { endStream });
const codeOf = ({ type, payload }: Frame): number => payload.readUInt32BE(type === FrameType.goaway ? 4 : 0);
const ping = (text = 'pingpong'): Buffer => frame(FrameType.ping, 0, 0, Buffer.from(text));
const isPong = ({ type, flags }: Frame): boolean => type === FrameType.ping && flags === Flag.ack;
const isEnd = (id: number) => ({ type, flags, streamId }: Frame): boolean => type === FrameType.headers && streamId === id && (flags & Flag.endStream) !== 0;

interface Peer {
  readonly server: SessionServer;
  readonly client: WireClient;
  readonly open: Open;
}

async function peer(t: { teardown: (undo: () => void) => void }, options: SessionServerOptions = {}): Promise<Peer> {
  const server = await SessionServer.open(options);
  const accepted = server.next();
  const client = await WireClient.connect(server.path);
  t.teardown(() => {
    client.destroy();
    server.close();
  });
  return { server, client, open: await accepted };
}

/** After the connection is gone nothing is held, and each reader has been told once. */
async function assertClean(t: { is: (a: unknown, b: unknown, message?: string) => void }, { client, open }: Peer): Promise<void> {
  client.destroy();
  await open.closed;
  t.is(open.held(), 0, 'bytes that are held after the end');
  for (const { closings, stream } of open.served) t.is(closings, 1, `closings of stream ${stream.id}`);
}

test('SETTINGS come first, and each SETTINGS and PING has its answer (RFC 9113 §3.4, §6.5.3, §6.7)', async (t) => {
  const made = await peer(t);
  made.client.send(PREFACE, CLIENT_SETTINGS, ping());
  const pong = await made.client.heard(isPong);
  t.is(pong.payload.toString(), 'pingpong');
  t.deepEqual(made.client.frames.map(({ type, flags }) => [type, flags]), [[FrameType.settings, 0], [FrameType.settings, Flag.ack], [FrameType.ping, Flag.ack]]);
  t.false(made.open.session.isIdle);
  made.client.send(frame(FrameType.settings, Flag.ack, 0), ping());
  await made.client.heard((heard) => isPong(heard) && heard !== pong);
  t.true(made.open.session.isIdle);
  await assertClean(t, made);
});

const connectionFaults: readonly (readonly [what: string, bytes: Buffer, code: number])[] = [
  ['a frame before SETTINGS', ping(), Code.protocolError],
  ['SETTINGS on a stream', Buffer.concat([CLIENT_SETTINGS, frame(FrameType.settings, 0, 1)]), Code.protocolError],
  ['SETTINGS of 5 bytes', Buffer.concat([CLIENT_SETTINGS, frame(FrameType.settings, 0, 0, Buffer.alloc(5))]), Code.frameSizeError],
  ['SETTINGS ACK with a payload', Buffer.concat([CLIENT_SETTINGS, frame(FrameType.settings, Flag.ack, 0, Buffer.alloc(6))]), Code.frameSizeError],
  ['ENABLE_PUSH of 2', settingsFrame([[Setting.enablePush, 2]]), Code.protocolError],
  ['MAX_FRAME_SIZE of 16,383', settingsFrame([[Setting.maxFrameSize, 16_383]]), Code.protocolError],
  ['INITIAL_WINDOW_SIZE of 2^31', settingsFrame([[Setting.initialWindowSize, 0x80000000]]), Code.flowControlError],
  ['a frame of 16,385 bytes', Buffer.concat([CLIENT_SETTINGS, Buffer.from('004001000000000001', 'hex')]), Code.frameSizeError],
  ['a frame of 16 MB', Buffer.concat([CLIENT_SETTINGS, Buffer.from('ffffff000000000001', 'hex')]), Code.frameSizeError],
  ['PUSH_PROMISE', Buffer.concat([CLIENT_SETTINGS, frame(FrameType.pushPromise, 0, 1, Buffer.alloc(8))]), Code.protocolError],
  ['PING of 7 bytes', Buffer.concat([CLIENT_SETTINGS, frame(FrameType.ping, 0, 0, Buffer.alloc(7))]), Code.frameSizeError],
  ['PING on a stream', Buffer.concat([CLIENT_SETTINGS, frame(FrameType.ping, 0, 1, Buffer.alloc(8))]), Code.protocolError],
  ['GOAWAY on a stream', Buffer.concat([CLIENT_SETTINGS, frame(FrameType.goaway, 0, 1, Buffer.alloc(8))]), Code.protocolError],
  ['DATA on stream 0', Buffer.concat([CLIENT_SETTINGS, data(0, Buffer.alloc(1))]), Code.protocolError],
  ['DATA on an idle stream', Buffer.concat([CLIENT_SETTINGS, data(1, Buffer.alloc(1))]), Code.protocolError],
  ['DATA with more padding than payload', Buffer.concat([CLIENT_SETTINGS, request(1), frame(FrameType.data, Flag.padded, 1, Buffer.from([4, 0, 0, 0]))]), Code.protocolError],
  ['RST_STREAM on an idle stream', Buffer.concat([CLIENT_SETTINGS, resetFrame(1, 0)]), Code.protocolError],
  ['RST_STREAM of 3 bytes', Buffer.concat([CLIENT_SETTINGS, request(1), frame(FrameType.rstStream, 0, 1, Buffer.alloc(3))]), Code.frameSizeError],
  ['WINDOW_UPDATE on an idle stream', Buffer.concat([CLIENT_SETTINGS, windowUpdateFrame(1, 1)]), Code.protocolError],
  ['WINDOW_UPDATE of the connection by nothing', Buffer.concat([CLIENT_SETTINGS, windowUpdateFrame(0, 0)]), Code.protocolError],
  ['WINDOW_UPDATE of the connection beyond 2^31-1', Buffer.concat([CLIENT_SETTINGS, windowUpdateFrame(0, 0x7fffffff)]), Code.flowControlError],
  ['a window of a stream beyond 2^31-1 by SETTINGS', Buffer.concat([CLIENT_SETTINGS, request(1), windowUpdateFrame(1, 0x7fff0000), settingsFrame([[Setting.initialWindowSize, 0x7fffffff]])]), Code.flowControlError],
  ['HEADERS on an even stream', Buffer.concat([CLIENT_SETTINGS, request(2)]), Code.protocolError],
  ['HEADERS on a smaller stream than before', Buffer.concat([CLIENT_SETTINGS, request(5), request(3)]), Code.streamClosed],
  ['CONTINUATION without HEADERS', Buffer.concat([CLIENT_SETTINGS, frame(FrameType.continuation, 0, 1)]), Code.protocolError],
  ['another frame within a header block', Buffer.concat([CLIENT_SETTINGS, frame(FrameType.headers, 0, 1), ping()]), Code.protocolError],
  ['a header block that is none', Buffer.concat([CLIENT_SETTINGS, headers(1, Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff]))]), Code.compressionError],
  ['PRIORITY on stream 0', Buffer.concat([CLIENT_SETTINGS, frame(FrameType.priority, 0, 0, Buffer.alloc(5))]), Code.protocolError],
  ['1,100 frames of an unknown type', Buffer.concat([CLIENT_SETTINGS, ...Array.from({ length: 1_100 }, () => frame(200, 0, 0))]), Code.enhanceYourCalm],
  ['1,100 PINGs', Buffer.concat([CLIENT_SETTINGS, ...Array.from({ length: 1_100 }, () => ping())]), Code.enhanceYourCalm],
  ['300 resets', Buffer.concat([CLIENT_SETTINGS, ...Array.from({ length: 300 }, (_, at) => Buffer.concat([request(2 * at + 1), resetFrame(2 * at + 1, Code.cancel)]))]), Code.enhanceYourCalm],
];

for (const [what, bytes, code] of connectionFaults) {
  test(`ends the connection: ${what}`, async (t) => {
    const made = await peer(t);
    made.client.send(PREFACE, bytes);
    t.is(codeOf(await made.client.heard(({ type }) => type === FrameType.goaway)), code);
    await made.client.closed();
    t.is(made.open.faults.length, 1);
    await assertClean(t, made);
  });
}

const streamFaults: readonly (readonly [what: string, bytes: Buffer, code: number])[] = [
  ['no :path', headers(1, new WireEncoder().block([[':method', 'POST'], [':scheme', 'http']])), Code.protocolError],
  ['a line feed in :path', headers(1, new WireEncoder().block(grpcRequest('/a\nb'))), Code.protocolError],
  ['trailers that do not end the stream', Buffer.concat([request(1), headers(1, new WireEncoder().block([['a', 'b']]))]), Code.protocolError],
  ['DATA after END_STREAM', Buffer.concat([request(1, true), data(1, Buffer.alloc(1))]), Code.streamClosed],
  ['HEADERS after END_STREAM', Buffer.concat([request(1, true), request(1, true)]), Code.streamClosed],
  ['a stream that depends on itself', headers(1, new WireEncoder().block(grpcRequest('/a/b')), { priority: Buffer.from([0, 0, 0, 1, 16]) }), Code.protocolError],
  ['WINDOW_UPDATE by nothing', Buffer.concat([request(1), windowUpdateFrame(1, 0)]), Code.protocolError],
  ['WINDOW_UPDATE beyond 2^31-1', Buffer.concat([request(1), windowUpdateFrame(1, 0x7fffffff)]), Code.flowControlError],
  ['a body that is not as long as content-length', Buffer.concat([headers(1, new WireEncoder().block([...grpcRequest('/a/b'), ['content-length', '2']])), data(1, Buffer.alloc(1), true)]), Code.protocolError],
  ['a header list that is too large', headers(1, new WireEncoder().block([...grpcRequest('/a/b'), ...Array.from({ length: 500 }, (): [string, string] => ['a', ''])])), Code.enhanceYourCalm],
];

for (const [what, bytes, code] of streamFaults) {
  test(`resets the stream and goes on: ${what}`, async (t) => {
    const made = await peer(t, { onEnd: () => undefined });
    made.client.send(PREFACE, CLIENT_SETTINGS, bytes, ping());
    await made.client.heard(isPong);
    t.deepEqual(made.client.frames.filter(({ type }) => type === FrameType.rstStream).map((each) => [each.streamId, codeOf(each)]), [[1, code]]);
    t.deepEqual(made.open.faults, []);
    await assertClean(t, made);
  });
}

test('a stream beyond SETTINGS_MAX_CONCURRENT_STREAMS is refused, and what was on its way for it is nobody\'s mistake (RFC 9113 §5.1.2)', async (t) => {
  const made = await peer(t, { limits: { concurrentStreams: 1 }, onEnd: () => undefined });
  made.client.send(PREFACE, CLIENT_SETTINGS, request(1), request(3), data(3, Buffer.alloc(9)), headers(3, new WireEncoder().block([['a', 'b']]), { endStream: true }), ping());
  await made.client.heard(isPong);
  t.deepEqual(made.client.frames.filter(({ type }) => type === FrameType.rstStream).map((each) => [each.streamId, codeOf(each)]), [[3, Code.refusedStream]]);
  await assertClean(t, made);
});

test('whoever is answered before having said all is told to stop, without an error (RFC 9113 §8.1)', async (t) => {
  const made = await peer(t, { onRequest: ({ stream }) => stream.sendFields(TRAILERS, true) });
  made.client.send(PREFACE, CLIENT_SETTINGS, request(1), data(1, Buffer.alloc(5)), data(1, Buffer.alloc(0), true), request(3, true), ping());
  await made.client.heard(isPong);
  t.deepEqual(made.client.frames.filter(({ type }) => type === FrameType.rstStream).map((each) => [each.streamId, codeOf(each)]), [[1, Code.noError]], 'one that had said all is not');
  await assertClean(t, made);
});

test('requests that are answered at once pay for nothing else, and are not paid for (RFC 9113 §10.5)', async (t) => {
  const made = await peer(t, { onRequest: ({ stream }) => stream.sendFields(TRAILERS, true) });
  made.client.send(PREFACE, CLIENT_SETTINGS, ...Array.from({ length: 1_500 }, (_, at) => request(2 * at + 1, true)));
  await made.client.heard(isEnd(2_999));
  t.deepEqual(made.open.faults, []);
  made.client.send(...Array.from({ length: 1_100 }, () => ping()));
  t.is(codeOf(await made.client.heard(({ type }) => type === FrameType.goaway)), Code.enhanceYourCalm);
  await assertClean(t, made);
});

test('what a reader keeps is given back once, when its connection ends in the middle', async (t) => {
  const made = await peer(t, { onRequest: ({ stream }) => t.true(stream.keep(60_000)) });
  made.client.send(PREFACE, CLIENT_SETTINGS, request(1), request(3), headers(5, Buffer.alloc(50), { cuts: [40] }).subarray(0, 60));
  while (made.open.served.length < 2) await new Promise((resolve) => setImmediate(resolve));
  t.true(made.open.held() >= 120_000);
  await assertClean(t, made);
  t.is(made.server.held, 0);
});

test('a reset by either side gives back what a reader kept', async (t) => {
  const made = await peer(t, { onRequest: ({ stream }) => t.true(stream.keep(1_000)) });
  made.client.send(PREFACE, CLIENT_SETTINGS, request(1), request(3), resetFrame(1, Code.cancel), ping());
  await made.client.heard(isPong);
  t.is(made.open.served[0]!.closings, 1);
  made.open.served[1]!.stream.reset(Code.enhanceYourCalm);
  await made.client.heard(({ type, streamId }) => type === FrameType.rstStream && streamId === 3);
  t.true(made.open.held() < 1_000);
  await assertClean(t, made);
});

test('a reader that is told of the end cannot have another one send', async (t) => {
  const made = await peer(t, { onEnd: () => undefined });
  made.client.send(PREFACE, CLIENT_SETTINGS, request(1, true), request(3, true), ping());
  await made.client.heard(isPong);
  const [first, second] = made.open.served;
  first!.closed = () => {
    first!.closings += 1;
    second!.stream.sendData(Buffer.alloc(100));
  };
  await assertClean(t, made);
});

test('an answer waits for the windows: of its stream, of the connection, and for a negative one (RFC 9113 §6.9.2)', async (t) => {
  const body = Buffer.from('abcdefghij');
  const made = await peer(t, { onEnd: ({ stream }) => t.true(stream.sendWhole(new WholeAnswer(HEAD, body, TRAILERS))) });
  const { client } = made;
  const got = (): string => Buffer.concat(client.frames.filter(({ type, streamId }) => type === FrameType.data && streamId === 1).map(({ payload }) => payload)).toString();
  const sync = async (...bytes: Buffer[]): Promise<string> => {
    const before = client.frames.filter(isPong).length;
    client.send(...bytes, ping());
    await client.heard(() => client.frames.filter(isPong).length > before);
    return got();
  };
  t.is(await sync(PREFACE, settingsFrame([[Setting.initialWindowSize, 3]]), request(1, true)), 'abc');
  t.is(await sync(settingsFrame([[Setting.initialWindowSize, 1]])), 'abc', 'the window is -2 now');
  t.is(await sync(windowUpdateFrame(1, 2)), 'abc');
  t.is(await sync(windowUpdateFrame(1, 1)), 'abcd');
  t.is(await sync(settingsFrame([[Setting.initialWindowSize, 0], [Setting.initialWindowSize, 2]])), 'abcde', 'the last size of a frame counts');
  t.is(await sync(windowUpdateFrame(0, 1_000)), 'abcde', 'the connection has room, the stream has none');
  t.is(await sync(settingsFrame([[Setting.initialWindowSize, 65_535]])), 'abcdefghij');
  await client.heard(isEnd(1));
  t.is(made.open.served[0]!.closings, 1);
  await assertClean(t, made);
});

test('the window of the connection is shared by the streams, first come, first served, and none is forgotten', async (t) => {
  const made = await peer(t, { onEnd: ({ stream }) => t.true(stream.sendWhole(new WholeAnswer(HEAD, Buffer.alloc(40_000, stream.id), TRAILERS))) });
  const { client } = made;
  client.send(PREFACE, CLIENT_SETTINGS, request(1, true), request(3, true), request(5, true), ping());
  await client.heard(isPong);
  const sizes = (): number[] => [1, 3, 5].map((id) => client.frames.filter(({ type, streamId }) => type === FrameType.data && streamId === id).reduce((sum, { length }) => sum + length, 0));
  t.deepEqual(sizes(), [40_000, 25_535, 0]);
  client.send(windowUpdateFrame(0, 10_000));
  await client.heard(() => sizes()[1] === 35_535);
  client.send(windowUpdateFrame(0, 0x1000_0000));
  for (const id of [1, 3, 5]) await client.heard(isEnd(id));
  t.deepEqual(sizes(), [40_000, 40_000, 40_000]);
  await assertClean(t, made);
});

test('an answer that would have to wait and has no room is refused before anything of it is sent', async (t) => {
  const sent: boolean[] = [];
  const made = await peer(t, { room: 100_000, onEnd: ({ stream }) => sent.push(stream.sendWhole(new WholeAnswer(HEAD, Buffer.alloc(30_000), TRAILERS))) });
  made.client.send(PREFACE, settingsFrame([[Setting.initialWindowSize, 0]]), request(1, true), request(3, true), ping());
  await made.client.heard(isPong);
  t.deepEqual(sent, [true, false]);
  t.false(made.client.frames.some(({ type, streamId }) => type === FrameType.headers && streamId === 3));
  await assertClean(t, made);
});

test('an answer of more than half of the room for answers has its message', async (t) => {
  const body = Buffer.alloc(60_000, 7);
  const made = await peer(t, { room: 160_000, onEnd: ({ stream }) => t.true(stream.sendWhole(new WholeAnswer(HEAD, body, TRAILERS))) });
  made.client.send(PREFACE, CLIENT_SETTINGS, request(1, true));
  await made.client.heard(isEnd(1));
  t.deepEqual(Buffer.concat(made.client.frames.filter(({ type }) => type === FrameType.data).map(({ payload }) => payload)), body);
  await assertClean(t, made);
});

test('what was written to many connections in one turn does not take the room of the others', async (t) => {
  const server = await SessionServer.open({ room: 200_000, onEnd: () => undefined });
  const clients: WireClient[] = [];
  for (let count = 0; count < 10; count++) {
    const client = await WireClient.connect(server.path);
    clients.push(client);
    client.send(PREFACE, CLIENT_SETTINGS, request(1, true), ping());
    await client.heard(isPong);
  }
  t.teardown(() => {
    for (const client of clients) client.destroy();
    server.close();
  });
  for (const { served } of server.opened) {
    served[0]!.stream.sendFields(HEAD, false);
    t.true(served[0]!.stream.sendData(Buffer.alloc(30_000)));
  }
  t.true(server.held <= 200_000);
});

test('nothing is read from a peer that does not read, and everything once it does', async (t) => {
  const body = Buffer.alloc(16_000, 1);
  const made = await peer(t, { limits: { concurrentStreams: 1_000 }, onEnd: ({ stream }) => t.true(stream.sendWhole(new WholeAnswer(HEAD, body, TRAILERS))) });
  const { client, open } = made;
  const count = 200;
  client.socket.pause();
  client.send(PREFACE, settingsFrame([[Setting.initialWindowSize, 0x7fffffff]]), windowUpdateFrame(0, 0x7fff_0000 - 65_535));
  for (let at = 0; at < count; at++) {
    client.send(request(2 * at + 1, true));
    // One read for each: what piles up over many reads counts too.
    await new Promise((resolve) => setImmediate(resolve));
  }
  while (!open.socket.isPaused()) await new Promise((resolve) => setImmediate(resolve));
  t.true(open.served.length < count, `${open.served.length} were answered`);
  t.true(made.server.most < 300_000, `${made.server.most} bytes`);
  client.socket.resume();
  await client.heard(isEnd(2 * count - 1));
  client.send(ping());
  await client.heard(isPong);
  t.is(open.served.length, count);
  t.deepEqual(open.served.map(({ closings }) => closings), Array.from({ length: count }, () => 1));
  t.true(open.held() < 1_000);
  await assertClean(t, made);
});

test('a peer that says all, half-closes and reads then is answered', async (t) => {
  const made = await peer(t);
  made.client.socket.end(Buffer.concat([PREFACE, CLIENT_SETTINGS, request(1), data(1, Buffer.from('ab'), true)]));
  await made.client.heard(isEnd(1));
  await assertClean(t, made);
});

test('a peer that half-closes while its answers wait gets them all', async (t) => {
  const made = await peer(t, { limits: { concurrentStreams: 1_000 }, onEnd: ({ stream }) => t.true(stream.sendWhole(new WholeAnswer(HEAD, Buffer.alloc(9_000), TRAILERS))) });
  const { client, open } = made;
  client.socket.pause();
  client.send(PREFACE, settingsFrame([[Setting.initialWindowSize, 0x7fffffff]]), windowUpdateFrame(0, 0x7fff_0000 - 65_535));
  let id = -1;
  // One read for each: the first that the kernel does not take waits, and the others behind it.
  while (!open.socket.isPaused()) {
    client.send(request((id += 2), true));
    await new Promise((resolve) => setImmediate(resolve));
  }
  // What comes now is looked at when the peer reads, with the end right behind it.
  for (let more = 0; more < 40; more++) client.send(request((id += 2), true));
  client.socket.end();
  client.socket.resume();
  await client.heard(isEnd(id));
  await client.closed();
  await assertClean(t, made);
});

test('a peer that does not read costs what is kept alive for it, not what is left of it', async (t) => {
  const made = await peer(t, { limits: { concurrentStreams: 1_000 }, onEnd: ({ stream }) => t.true(stream.sendWhole(new WholeAnswer(HEAD, Buffer.alloc(900), TRAILERS))) });
  made.client.socket.pause();
  made.client.send(PREFACE, settingsFrame([[Setting.initialWindowSize, 0x7fffffff]]), windowUpdateFrame(0, 0x7fff_0000 - 65_535));
  for (let id = 1; made.open.socket.writableLength === 0; id += 2) {
    made.client.send(request(id, true));
    await new Promise((resolve) => setImmediate(resolve));
  }
  t.true(made.open.held() >= 96 * 1_024, `${made.open.held()} bytes`);
  t.true(made.open.socket.isPaused());
  await assertClean(t, made);
});

test('padding counts as body for the windows and is not given to the reader (RFC 9113 §6.9.1)', async (t) => {
  const made = await peer(t, { onEnd: () => undefined });
  const padded = frame(FrameType.data, Flag.padded, 1, Buffer.concat([Buffer.from([255]), Buffer.from('x'), Buffer.alloc(255)]));
  made.client.send(PREFACE, CLIENT_SETTINGS, request(1), ...Array.from({ length: 200 }, () => padded), ping());
  await made.client.heard(isPong);
  t.is(Buffer.concat(made.open.served[0]!.body).length, 200);
  t.deepEqual(made.client.frames.filter(({ type }) => type === FrameType.windowUpdate).map(({ streamId }) => streamId), [0, 1]);
  await assertClean(t, made);
});

test('DATA that nobody wants any more gives its window back (RFC 9113 §6.9)', async (t) => {
  const made = await peer(t, { onRequest: ({ stream }) => stream.sendFields(TRAILERS, true) });
  made.client.send(PREFACE, CLIENT_SETTINGS, request(1), ...Array.from({ length: 20 }, () => data(1, Buffer.alloc(16_384))), ping());
  await made.client.heard(isPong);
  t.deepEqual(made.open.faults, []);
  await assertClean(t, made);
});

test('a client whose HPACK table is smaller is told once that none is used (RFC 7541 §4.2)', async (t) => {
  const made = await peer(t);
  made.client.send(PREFACE, settingsFrame([[Setting.headerTableSize, 0]]), request(1, true), ping());
  await made.client.heard(isPong);
  made.client.send(settingsFrame([[Setting.headerTableSize, 100]]), request(3, true));
  await made.client.heard(isEnd(3));
  const blocks = made.client.frames.filter(({ type }) => type === FrameType.headers).map(({ payload }) => payload[0]);
  t.deepEqual(blocks, [0x20, TRAILERS[0], HEAD[0], TRAILERS[0]]);
  await assertClean(t, made);
});

test('what is put off is looked at when its turn comes, whatever comes meanwhile', async (t) => {
  const server = await SessionServer.open({ reads: false });
  const accepted = server.next();
  const client = await WireClient.connect(server.path);
  t.teardown(() => {
    client.destroy();
    server.close();
  });
  const { session, socket, served, held, closed } = await accepted;
  t.true(session.defer(Buffer.concat([PREFACE, CLIENT_SETTINGS, request(1)])));
  t.true(socket.isPaused());
  t.false(session.defer(data(1, Buffer.from('ab'), true)));
  t.is(served.length, 0);
  t.true(held() > 100);
  session.goOn();
  await client.heard(isEnd(1));
  t.false(socket.isPaused());
  t.is(held(), 0);
  t.true(session.defer(request(3, true)));
  socket.destroy();
  await closed;
  session.goOn();
  t.false(session.defer(Buffer.alloc(1)));
  t.deepEqual([served.length, held()], [1, 0]);
});
