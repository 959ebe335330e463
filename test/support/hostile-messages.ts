import { deflateSync, gzipSync } from 'node:zlib';
import { data, grpcMessage, grpcRequest, headers, WireEncoder, type Field } from './http2-wire.ts';
import {
  body, call, callBlock, FETCH_JWT, FETCH_X509, HEALTH_CHECK, HostileConnection, inParallel, jwtRequest, newHeard, protoField, REFLECT,
  VALIDATE_JWT, type Heard, type Target,
} from './hostile-wire.ts';

const HEADER: Field = ['workload.spiffe.io', 'true'];
const NOTHING = Buffer.alloc(0);

const METHODS = ['FetchX509SVID', 'FetchX509Bundles', 'FetchJWTSVID', 'FetchJWTBundles', 'ValidateJWTSVID', 'FetchWITSVID', 'FetchWITBundles'] as const;

/** Ways to say it wrongly (WE-08). */
const HEADERS: Readonly<Record<string, readonly Field[]>> = {
  absent: [],
  TRUE: [['workload.spiffe.io', 'TRUE']],
  True: [['workload.spiffe.io', 'True']],
  one: [['workload.spiffe.io', '1']],
  empty: [['workload.spiffe.io', '']],
  false: [['workload.spiffe.io', 'false']],
  'true,true': [['workload.spiffe.io', 'true,true']],
  'true, true': [['workload.spiffe.io', 'true, true']],
  'true and false': [HEADER, ['workload.spiffe.io', 'false']],
  'true twice': [HEADER, HEADER],
  'another key': [['workload.spiffe.io.', 'true']],
  'the key of the Broker API': [['broker.spiffe.io', 'true']],
  'a binary key': [['workload.spiffe.io-bin', 'dHJ1ZQ==']],
};

/** One request and how it may end, for a caller without an identity and for one that has some. */
export interface MessageCase {
  readonly bytes: (stream: number) => Buffer;
  /** `<grpc-status> <text>`, `reset <code>`, `goaway <code>`, `http <status>`, `closed`. */
  readonly stranger: string;
  readonly owner: string;
}

function request(path: string, message: Buffer, fields: readonly Field[] = [HEADER]): (stream: number) => Buffer {
  return (stream) => Buffer.concat([headers(stream, callBlock(path, fields)), body(stream, grpcMessage(message))]);
}

/** The body as it is, whatever it means. */
function rawRequest(path: string, bytes: Buffer, fields: readonly Field[] = [HEADER]): (stream: number) => Buffer {
  return (stream) => Buffer.concat([headers(stream, callBlock(path, fields)), body(stream, bytes)]);
}

function withContentType(type: string | undefined): (stream: number) => Buffer {
  const fields = grpcRequest(FETCH_X509, 'localhost').filter(([name]) => name !== 'content-type');
  const block = new WireEncoder().block([...fields, ...(type === undefined ? [] : [['content-type', type] as const]), HEADER]);
  return (stream) => Buffer.concat([headers(stream, block), data(stream, grpcMessage(NOTHING), true)]);
}

function compressed(payload: Buffer, ...encoding: Field[]): (stream: number) => Buffer {
  const message = grpcMessage(payload);
  message[0] = 1;
  return rawRequest(FETCH_JWT, message, [HEADER, ...encoding]);
}

const same = (bytes: (stream: number) => Buffer, ending: string): MessageCase => ({ bytes, stranger: ending, owner: ending });
const MISSING = '3 security header missing from request';
const NO_IDENTITY = '7 no identity issued';
const BOMB = Buffer.alloc(64 * 1024 * 1024);
const validation = (audience: string, svid: string): Buffer => Buffer.concat([protoField(1, audience), protoField(2, svid)]);
const COMPRESSED = '12 compressed requests are not supported';
const BAD_PROTOBUF = '13 Error deserializing request';

/** The security header, said wrongly, to every RPC. */
export const headerCases: Readonly<Record<string, MessageCase>> = Object.fromEntries(
  METHODS.flatMap((method) =>
    Object.entries(HEADERS).map(([name, fields]) => [`${method}: ${name}`, same(request(`/SpiffeWorkloadAPI/${method}`, NOTHING, fields), MISSING)]),
  ),
);

/** Requests that are wrong in some other way. */
export const messageCases: Readonly<Record<string, MessageCase>> = {
  'garbage for protobuf': same(request(FETCH_JWT, Buffer.alloc(100, 0xff)), BAD_PROTOBUF),
  'bytes that run past the end': same(request(FETCH_JWT, Buffer.from([0x1a, 0x7f, 0x61])), BAD_PROTOBUF),
  '100,000 groups in one another': same(request(FETCH_JWT, Buffer.alloc(100_000, 0x1b)), BAD_PROTOBUF),
  'a varint without end': same(request(VALIDATE_JWT, Buffer.alloc(64, 0x80)), BAD_PROTOBUF),
  'field number 0': same(request(FETCH_JWT, Buffer.from([0x02, 0x01, 0x61])), BAD_PROTOBUF),
  'no message at all': same(rawRequest(FETCH_JWT, NOTHING), '12 Received no request message for method /SpiffeWorkloadAPI/FetchJWTSVID'),
  'two messages': same(rawRequest(FETCH_JWT, Buffer.alloc(10)), '12 Received a second request message for method /SpiffeWorkloadAPI/FetchJWTSVID'),
  'half a message': same(rawRequest(FETCH_JWT, Buffer.from([0, 0, 0, 0, 9, 1])), '12 Received no request message for method /SpiffeWorkloadAPI/FetchJWTSVID'),
  '1,000 audiences': { bytes: request(FETCH_JWT, jwtRequest(...Array.from({ length: 1_000 }, (_, at) => `a${at}`))), stranger: NO_IDENTITY, owner: '3 too many audiences' },
  'an audience of 100 KB': { bytes: request(FETCH_JWT, jwtRequest('x'.repeat(100_000))), stranger: NO_IDENTITY, owner: '3 an audience is too long' },
  'an audience of 1 MiB': same(request(FETCH_JWT, jwtRequest('x'.repeat(1 << 20))), '8 Received message larger than max (1048580 vs. 131072)'),
  'a spiffe_id of 100 KB': { bytes: request(FETCH_JWT, Buffer.concat([jwtRequest('a'), protoField(2, 'x'.repeat(100_000))])), stranger: NO_IDENTITY, owner: '3 spiffe_id is not a SPIFFE ID' },
  'a spiffe_id of another owner': { bytes: request(FETCH_JWT, Buffer.concat([jwtRequest('a'), protoField(2, 'spiffe://example.org/ns/default/sa/tester')])), stranger: NO_IDENTITY, owner: NO_IDENTITY },
  'a spiffe_id that is not UTF-8': same(request(FETCH_JWT, Buffer.concat([jwtRequest('a'), protoField(2, Buffer.from([0x73, 0xff, 0xfe]))])), BAD_PROTOBUF),
  'a spiffe_id with a lone surrogate': same(request(FETCH_JWT, Buffer.concat([jwtRequest('a'), protoField(2, Buffer.from([0xed, 0xa0, 0x80]))])), BAD_PROTOBUF),
  'an svid of 70 KB': same(request(VALIDATE_JWT, validation('a', 'x'.repeat(70_000))), '3 svid is too long'),
  'an svid of 64 KiB': same(request(VALIDATE_JWT, validation('a', 'x'.repeat(65_536))), '3 svid is not valid'),
  'an svid of 1 MiB': same(request(VALIDATE_JWT, validation('a', 'x'.repeat(1 << 20))), '8 Received message larger than max (1048583 vs. 131072)'),
  'an audience to validate of 100 KB': same(request(VALIDATE_JWT, validation('x'.repeat(100_000), 'y')), '3 an audience is too long'),
  'an svid with a lone surrogate': same(request(VALIDATE_JWT, Buffer.concat([protoField(1, 'a'), protoField(2, Buffer.from([0xed, 0xa0, 0x80]))])), BAD_PROTOBUF),
  'an svid that is not UTF-8': same(request(VALIDATE_JWT, Buffer.concat([protoField(1, 'a'), protoField(2, Buffer.alloc(64, 0xfe))])), BAD_PROTOBUF),
  'WE-32: an unknown method': same(request('/SpiffeWorkloadAPI/NoSuch', NOTHING), '12 The server does not implement the method /SpiffeWorkloadAPI/NoSuch'),
  'WE-32: the name of a member of every object': same(request('/__proto__', NOTHING), '12 The server does not implement the method /__proto__'),
  'WE-32: a path with octets above 0x7f': same(request('/\u00ff\u00fe\u0080', NOTHING), '*'),
  'WE-32: a path of 15,000 octets': same(request(`/${'x'.repeat(15_000)}`, NOTHING), '*'),
  'a path of 64 KiB': same(request(`/${'x'.repeat(16_300)}`, NOTHING), '*'),
  'no content-type': same(withContentType(undefined), 'http 415'),
  'another content-type': same(withContentType('text/plain'), 'http 415'),
  'a gzip bomb': same(compressed(gzipSync(BOMB), ['grpc-encoding', 'gzip']), COMPRESSED),
  'a deflate bomb': same(compressed(deflateSync(BOMB), ['grpc-encoding', 'deflate']), COMPRESSED),
  'gzip that is none': same(compressed(Buffer.alloc(100, 7), ['grpc-encoding', 'gzip']), COMPRESSED),
  'an unknown compression': same(compressed(NOTHING, ['grpc-encoding', 'snappy']), COMPRESSED),
  'grpc-timeout: letters': same(request(FETCH_JWT, NOTHING, [HEADER, ['grpc-timeout', 'soon']]), '13 Invalid grpc-timeout value "soon"'),
  'grpc-timeout: octets above 0x7f': same(request(FETCH_JWT, NOTHING, [HEADER, ['grpc-timeout', '\u00ff\u00fe']]), '*'),
  'grpc-timeout: none left': { bytes: request(FETCH_X509, NOTHING, [HEADER, ['grpc-timeout', '0n']]), stranger: '*', owner: '4 Deadline exceeded' },
  'a name in capitals': same(request(FETCH_JWT, NOTHING, [['Workload.Spiffe.Io', 'true']]), 'reset 1'),
  'CR and LF in a value': same(request(FETCH_JWT, NOTHING, [['workload.spiffe.io', 'true\r\nx: y']]), 'reset 1'),
  'NUL in a value': same(request(FETCH_JWT, NOTHING, [['workload.spiffe.io', 'true\0']]), 'reset 1'),
  'an unknown service to health': same(request(HEALTH_CHECK, protoField(1, 'nobody')), '5 unknown service'),
  'an unknown symbol to reflection': same(request(REFLECT, protoField(4, '__proto__')), '0 OK'),
};

/** How the one call of this connection ended. */
function endingOf(heard: Heard): string | undefined {
  const [text] = Object.keys(heard.endings);
  if (text !== undefined) return safeDecode(text);
  const [code] = Object.keys(heard.resets);
  if (code !== undefined) return `reset ${code}`;
  const [goaway] = Object.keys(heard.goaways);
  return goaway === undefined ? undefined : `goaway ${goaway}`;
}

/** grpc-message is percent-encoded; what is not even that is shown as it came. */
function safeDecode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Sends one request over a connection of its own. The first request of a connection is read by the agent itself, so a call goes before. */
export async function endingFor(socketPath: string, bytes: (stream: number) => Buffer, isFirst = false): Promise<string> {
  const heard = newHeard();
  const connection = await HostileConnection.open(socketPath, {}, heard);
  try {
    if (!isFirst) {
      await connection.send(call(connection.stream(), HEALTH_CHECK));
      await connection.until(() => Object.keys(heard.endings).length > 0);
      for (const key of Object.keys(heard.endings)) delete heard.endings[key];
    }
    await connection.send(bytes(connection.stream()));
    await connection.until(() => endingOf(heard) !== undefined);
    return endingOf(heard) ?? (connection.isOpen ? 'nothing' : 'closed');
  } finally {
    connection.destroy();
  }
}

async function askEach(socketPath: string, cases: Readonly<Record<string, MessageCase>>): Promise<{ answers: Record<string, string> }> {
  const entries = Object.entries(cases);
  const endings = await inParallel(entries.length, 4, (index) => endingFor(socketPath, entries[index]?.[1].bytes ?? (() => NOTHING)));
  return { answers: Object.fromEntries(entries.map(([name], index) => [name, endings[index] ?? ''])) };
}

/** Attacks with what is in a request. Each resolves with how each request ended. */
export const messageAttacks = {
  headers: ({ socketPath }: Target) => askEach(socketPath, headerCases),
  messages: ({ socketPath }: Target) => askEach(socketPath, messageCases),

  /** Compressed messages of 64 KB that would become 64 MiB. */
  gzipBombs: async ({ socketPath, count = 200 }: Target) => {
    const bomb = compressed(gzipSync(BOMB), ['grpc-encoding', 'gzip']);
    const endings = await inParallel(count, 16, () => endingFor(socketPath, bomb));
    return { endings: endings.reduce<Record<string, number>>((counts, ending) => ({ ...counts, [ending]: (counts[ending] ?? 0) + 1 }), {}) };
  },
};
