import test from 'ava';
import type { Method, ServerCall } from '../../src/grpc/call.ts';
import { Message } from '../../src/grpc/message.ts';
import { GrpcServer } from '../../src/grpc/server.ts';
import { CallFault, Status, type CallStatus } from '../../src/grpc/status.ts';
import { Code, Flag, FrameType, PREFACE, Setting, settingsFrame, windowUpdateFrame } from '../../src/http2/frames.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { CLIENT_SETTINGS, data, frame, grpcMessage, grpcRequest, headers, WireClient, WireEncoder, type Field } from '../support/http2-wire.ts';
import { SessionServer, type Open } from '../support/session-server.ts';

/** Whose connection it is. */
interface Me {
  readonly name: string;
}

type Call = ServerCall<Me>;

interface Made {
  readonly client: WireClient;
  readonly open: Open;
  readonly server: SessionServer;
  readonly clock: FakeClock;
  readonly calls: Call[];
  readonly closed: Call[];
  readonly mistakes: unknown[];
  readonly refused: string[];
  /** What a stream ended with: HTTP status, grpc-status, grpc-message, or `reset CODE`. */
  ending(id: number): Promise<string>;
  messages(id: number): string[];
}

interface Options {
  readonly admit?: () => CallStatus | undefined;
  readonly admitNext?: () => CallStatus | undefined;
  readonly room?: number;
}

const TOO_MANY: CallStatus = { code: Status.unavailable, details: 'too many' };

async function serve(t: { teardown: (undo: () => void) => void }, methods: Record<string, Method<Me>>, options: Options = {}): Promise<Made> {
  const me: Me = { name: 'me' };
  const clock = new FakeClock();
  const [calls, closed, mistakes, refused]: [Call[], Call[], unknown[], string[]] = [[], [], [], []];
  const grpc = new GrpcServer<Me>({
    methods: new Map(Object.entries(methods)),
    messageBytes: 100_000,
    clock,
    admit: (call) => {
      calls.push(call);
      call.onClosed(() => closed.push(call));
      return options.admit?.();
    },
    admitNext: () => options.admitNext?.(),
    noRoom: TOO_MANY,
    onNoRoom: (_, path) => refused.push(`no room: ${path}`),
    onRefused: (_, path, detail) => refused.push(`${path}: ${detail}`),
    onMistake: (error) => mistakes.push(error),
  });
  const server = await SessionServer.open({ clock, reader: (stream, head) => grpc.request(me, stream, head), ...(options.room === undefined ? {} : { room: options.room }) });
  const accepted = server.next();
  const client = await WireClient.connect(server.path);
  t.teardown(() => {
    client.destroy();
    server.close();
  });
  const ending = async (id: number): Promise<string> => {
    const last = await client.heard(({ type, flags, streamId, payload }) => streamId === id && ((type === FrameType.headers && (flags & Flag.endStream) !== 0) || (type === FrameType.rstStream && payload.readUInt32BE(0) !== Code.noError)));
    if (last.type === FrameType.rstStream) return `reset ${last.payload.readUInt32BE(0)}`;
    const fields = new Map(client.fields(id).flat());
    return ['', ':status', 'grpc-status', 'grpc-message'].map((name) => fields.get(name)).filter((value) => value !== undefined).join(' ');
  };
  const messages = (id: number): string[] => {
    let bytes = Buffer.concat(client.frames.filter(({ type, streamId }) => type === FrameType.data && streamId === id).map(({ payload }) => payload));
    const found: string[] = [];
    for (; bytes.length >= 5; bytes = bytes.subarray(5 + bytes.readUInt32BE(1))) found.push(bytes.toString('latin1', 5, 5 + bytes.readUInt32BE(1)));
    return found;
  };
  return { client, open: await accepted, server, clock, calls, closed, mistakes, refused, ending, messages };
}

const head = (id: number, path: string, more: readonly Field[] = [], endStream = false): Buffer => headers(id, new WireEncoder().block([...grpcRequest(path), ...more]), { endStream });
const request = (id: number, path: string, text: string, more: readonly Field[] = []): Buffer => Buffer.concat([head(id, path, more), data(id, grpcMessage(Buffer.from(text)), true)]);
const echo: Method<Me> = { kind: 'unary', handle: (call, message) => call.answer(new Message(Buffer.from(message))) };
const silent: Method<Me> = { kind: 'server-stream', handle: () => undefined };

async function assertClean(t: { is: (a: unknown, b: unknown, message?: string) => void }, { client, open, closed, calls, clock }: Made): Promise<void> {
  client.destroy();
  await open.closed;
  t.is(open.held(), 0, 'bytes that are held after the end');
  t.is(closed.length, calls.length, 'calls that were told of their end');
  t.is(new Set(closed).size, closed.length, 'told once');
  t.is(clock.pending, 0, 'alarms');
}

test('a unary call is answered, its request in however many pieces', async (t) => {
  const made = await serve(t, { '/a/b': echo });
  const bytes = grpcMessage(Buffer.from('hello'));
  made.client.send(PREFACE, CLIENT_SETTINGS, head(1, '/a/b'), ...[...bytes].map((octet) => data(1, Buffer.of(octet))), data(1, Buffer.alloc(0), true), request(3, '/a/b', ''));
  t.is(await made.ending(1), '200 0');
  t.is(await made.ending(3), '200 0');
  t.deepEqual([made.messages(1), made.messages(3)], [['hello'], ['']]);
  await assertClean(t, made);
});

test('whatever a method throws ends its call and no other', async (t) => {
  const made = await serve(t, {
    '/a/b': echo,
    '/a/fault': { kind: 'unary', handle: () => { throw new CallFault(Status.invalidArgument, 'not so'); } },
    '/a/mistake': { kind: 'unary', handle: () => { throw new Error('secret'); } },
  });
  made.client.send(PREFACE, CLIENT_SETTINGS, request(1, '/a/fault', 'x'), request(3, '/a/mistake', 'x'), request(5, '/a/b', 'x'));
  t.is(await made.ending(1), '200 3 not%20so');
  t.is(await made.ending(3), '200 14 the%20agent%20could%20not%20answer');
  t.is(await made.ending(5), '200 0');
  t.deepEqual(made.mistakes.map(String), ['Error: secret']);
  t.deepEqual(made.refused, ['/a/fault: not so']);
  await assertClean(t, made);
});

const endings: readonly (readonly [what: string, bytes: Buffer, ending: RegExp])[] = [
  ['an unknown method', request(1, '/a/none', 'x'), /^200 12 The%20server%20does%20not%20implement%20the%20method%20\/a\/none$/],
  ['a name that every object has', request(1, '__proto__', 'x'), /^200 12 /],
  ['another content-type', headers(1, new WireEncoder().block(grpcRequest('/a/b').map(([name, value]): Field => [name, name === 'content-type' ? 'text/html' : value])), { endStream: true }), /^415$/],
  ['application/grpc-web', headers(1, new WireEncoder().block(grpcRequest('/a/b').map(([name, value]): Field => [name, name === 'content-type' ? 'application/grpc-web' : value])), { endStream: true }), /^415$/],
  ['GET', headers(1, new WireEncoder().block(grpcRequest('/a/b').map(([name, value]): Field => [name, name === ':method' ? 'GET' : value])), { endStream: true }), /^405$/],
  ['no message', head(1, '/a/b', [], true), /^200 12 Received%20no%20request/],
  ['half a message', Buffer.concat([head(1, '/a/b'), data(1, Buffer.from('00000000', 'hex'), true)]), /^200 12 Received%20no%20request/],
  ['two messages', Buffer.concat([head(1, '/a/b'), data(1, Buffer.alloc(10), true)]), /^200 12 Received%20a%20second/],
  ['a compressed message', Buffer.concat([head(1, '/a/b'), data(1, Buffer.from('0100000000', 'hex'), true)]), /^200 12 compressed/],
  ['a timeout that is none', request(1, '/a/b', 'x', [['grpc-timeout', 'soon']]), /^200 13 Invalid%20grpc-timeout/],
  ['a timeout of nothing', request(1, '/a/silent', 'x', [['grpc-timeout', '0n']]), /^200 4 Deadline/],
];

for (const [what, bytes, ending] of endings) {
  test(`ends as gRPC has it: ${what}`, async (t) => {
    const made = await serve(t, { '/a/b': echo, '/a/silent': silent });
    made.client.send(PREFACE, CLIENT_SETTINGS, bytes);
    t.regex(await made.ending(1), ending);
    await assertClean(t, made);
  });
}

test('a call for which there is no place costs nothing more', async (t) => {
  const made = await serve(t, { '/a/b': echo }, { admit: () => TOO_MANY });
  made.client.send(PREFACE, CLIENT_SETTINGS, request(1, '/a/b', 'x'));
  t.is(await made.ending(1), '200 14 too%20many');
  await assertClean(t, made);
});

test('a deadline ends a call that was not answered, in its time; one of years never rings early', async (t) => {
  const made = await serve(t, { '/a/silent': silent });
  made.client.send(PREFACE, CLIENT_SETTINGS, request(1, '/a/silent', 'x', [['grpc-timeout', '3S']]), request(3, '/a/silent', 'x', [['grpc-timeout', '99999999H']]));
  while (made.clock.pending === 0) await new Promise((resolve) => setImmediate(resolve));
  made.clock.advance(2_999);
  t.is(made.calls[0]!.isOver, false);
  made.clock.advance(1);
  t.is(await made.ending(1), '200 4 Deadline%20exceeded');
  t.is(made.clock.pending, 0);
  t.is(made.calls[1]!.isOver, false);
  await assertClean(t, made);
});

test('an exchange is answered one message after the other, and ends with its client', async (t) => {
  const handled: string[] = [];
  const exchange: Method<Me> = {
    kind: 'exchange',
    handle: (call, message) => {
      handled.push(message.toString());
      call.send(new Message(Buffer.from(message)), () => call.next());
    },
  };
  const made = await serve(t, { '/a/x': exchange });
  const say = (text: string, last = false): Buffer => data(1, grpcMessage(Buffer.from(text)), last);
  made.client.send(PREFACE, CLIENT_SETTINGS, head(1, '/a/x'), say('1'), say('2'));
  made.client.send(say('3'), data(1, Buffer.alloc(0), true));
  t.is(await made.ending(1), '200 0');
  t.deepEqual([handled, made.messages(1)], [['1', '2', '3'], ['1', '2', '3']]);
  await assertClean(t, made);
});

test('of an exchange 16 messages may wait; the next resets it, told once however many more there are', async (t) => {
  const exchange: Method<Me> = { kind: 'exchange', handle: () => undefined };
  const made = await serve(t, { '/a/x': exchange });
  made.client.send(PREFACE, CLIENT_SETTINGS, head(1, '/a/x'), data(1, Buffer.alloc(5 * 17)), head(3, '/a/x'), data(3, Buffer.alloc(5 * 3_000)));
  t.is(await made.ending(3), `reset ${Code.enhanceYourCalm}`);
  t.is(made.calls[0]!.isOver, false);
  t.deepEqual(made.refused, ['/a/x: more than 16 messages of one call at once']);
  await assertClean(t, made);
});

test('an exchange that asks too often ends', async (t) => {
  let left = 3;
  const exchange: Method<Me> = { kind: 'exchange', handle: (call) => void call.send(new Message(Buffer.from('x')), () => call.next()) };
  const made = await serve(t, { '/a/x': exchange }, { admitNext: () => (left-- > 0 ? undefined : TOO_MANY) });
  made.client.send(PREFACE, CLIENT_SETTINGS, head(1, '/a/x'), data(1, Buffer.alloc(5 * 10)));
  t.is(await made.ending(1), '200 14 too%20many');
  t.is(made.messages(1).length, 4);
  await assertClean(t, made);
});

test('an exchange whose last message is not complete is told so', async (t) => {
  const exchange: Method<Me> = { kind: 'exchange', handle: (call) => call.next() };
  const made = await serve(t, { '/a/x': exchange });
  made.client.send(PREFACE, CLIENT_SETTINGS, head(1, '/a/x'), data(1, Buffer.alloc(8), true));
  t.regex(await made.ending(1), /^200 13 /);
  await assertClean(t, made);
});

test('an answer whose reader gives no window waits, counted; the call is over when it was read', async (t) => {
  const made = await serve(t, { '/a/b': { kind: 'unary', handle: (call) => call.answer(new Message(Buffer.alloc(50_000, 1))) } });
  made.client.send(PREFACE, settingsFrame([[Setting.initialWindowSize, 0]]), request(1, '/a/b', 'x'), frame(FrameType.ping, 0, 0, Buffer.alloc(8)));
  await made.client.heard(({ type }) => type === FrameType.ping);
  t.true(made.open.held() >= 50_000);
  t.is(made.closed.length, 0);
  made.client.send(windowUpdateFrame(1, 60_000));
  t.is(await made.ending(1), '200 0');
  t.is(made.messages(1)[0]?.length, 50_000);
  t.true(made.open.held() < 1_000);
  await assertClean(t, made);
});

test('an answer for which there is no room ends its call with that', async (t) => {
  const made = await serve(t, { '/a/b': { kind: 'unary', handle: (call) => call.answer(new Message(Buffer.alloc(50_000, 1))) }, '/a/s': { kind: 'server-stream', handle: (call) => void t.false(call.send(new Message(Buffer.alloc(50_000)))) } }, { room: 60_000 });
  made.client.send(PREFACE, settingsFrame([[Setting.initialWindowSize, 0]]), request(1, '/a/b', 'x'), request(3, '/a/s', 'x'));
  t.is(await made.ending(1), '200 14 too%20many');
  t.is(await made.ending(3), '200 14 too%20many');
  t.deepEqual(made.refused, ['no room: /a/b', 'no room: /a/s']);
  await assertClean(t, made);
});

test('unfinished requests are counted, and reset when there is no room for them', async (t) => {
  const made = await serve(t, { '/a/b': echo }, { room: 100_000 });
  const half = (id: number): Buffer => Buffer.concat([head(id, '/a/b'), ...[0, 1, 2].map((at) => data(id, at === 0 ? Buffer.concat([Buffer.from('0000015000', 'hex'), Buffer.alloc(10_000)]) : Buffer.alloc(10_000)))]);
  made.client.send(PREFACE, CLIENT_SETTINGS, half(1), half(3), half(5));
  t.is(await made.ending(5), `reset ${Code.enhanceYourCalm}`);
  t.true(made.server.most <= 100_000);
  await assertClean(t, made);
  t.is(made.server.held, 0);
});

test('long heads are counted until they were looked at, and a path is kept as it is shown', async (t) => {
  const made = await serve(t, { '/a/silent': silent });
  const long: Field[] = [['x-long', 'v'.repeat(8_000)]];
  made.client.send(PREFACE, CLIENT_SETTINGS, head(1, '/a/silent', long), frame(FrameType.ping, 0, 0, Buffer.alloc(8)));
  await made.client.heard(({ type }) => type === FrameType.ping);
  t.true(made.open.held() >= 8_000);
  made.client.send(data(1, grpcMessage(Buffer.alloc(0)), true), request(3, `/${'p'.repeat(9_000)}`, ''));
  t.regex(await made.ending(3), /^200 12 .{0,400}$/);
  t.true(made.open.held() < 1_000);
  t.is(made.calls[1]!.path.length, 256);
  await assertClean(t, made);
});
