import test from 'ava';
import { httpStatus, OK_TRAILERS, RESPONSE_HEAD, Status, trailersOf, trailersOnly } from '../../src/grpc/status.ts';
import { HpackDecoder } from '../../src/http2/hpack.ts';

const read = (block: Buffer): string[] => new HpackDecoder({ maxTableSize: 0, maxHeaderListSize: 1 << 20 }).decode(block).map(({ name, value }) => `${name}: ${value}`);

test('the parts of an answer are those of gRPC over HTTP/2', (t) => {
  t.deepEqual(read(RESPONSE_HEAD), [':status: 200', 'content-type: application/grpc', 'grpc-accept-encoding: identity']);
  t.deepEqual(read(OK_TRAILERS), ['grpc-status: 0']);
  t.deepEqual(read(trailersOf({ code: Status.unavailable, details: 'later' })), ['grpc-status: 14', 'grpc-message: later']);
  t.deepEqual(read(trailersOnly({ code: Status.permissionDenied, details: 'no' })), [...read(RESPONSE_HEAD), 'grpc-status: 7', 'grpc-message: no']);
  t.deepEqual(read(httpStatus(415)), [':status: 415', 'content-length: 0']);
});

test('a text is percent-encoded: nothing in it can end the field or mean something else', (t) => {
  const details = 'a%b\r\nc\0"ä😀';
  const [, message = ''] = read(trailersOf({ code: Status.internal, details }));
  t.regex(message, /^grpc-message: [\x20-\x7e]*$/);
  t.is(decodeURIComponent(message.slice('grpc-message: '.length)), details);
});
