import test from 'ava';
import { StreamFault } from '../../src/http2/fault.ts';
import { Code } from '../../src/http2/frames.ts';
import type { HeaderField } from '../../src/http2/hpack.ts';
import { checkTrailers, readRequestHead } from '../../src/http2/request-head.ts';
import { grpcRequest, type Field } from '../support/http2-wire.ts';

const fieldsOf = (list: readonly Field[]): HeaderField[] => list.map(([name, value]) => ({ name, value, sensitive: false }));
const REQUEST = grpcRequest('/a/b', '/run/signet.sock');

test('a request is its method, its path and its fields in their order; the authority may be a path', (t) => {
  const head = readRequestHead(fieldsOf([...REQUEST, ['x', '1'], ['x', '2'], ['content-length', '12']]));
  t.deepEqual([head.method, head.path, head.contentLength], ['POST', '/a/b', 12]);
  t.deepEqual(head.fields.map(({ name, value }) => `${name}=${value}`), ['te=trailers', 'content-type=application/grpc', 'x=1', 'x=2', 'content-length=12']);
});

const wrong: readonly (readonly [what: string, fields: readonly Field[], rule: RegExp])[] = [
  ['no :method', REQUEST.filter(([name]) => name !== ':method'), /§8\.3\.1/],
  ['no :scheme', REQUEST.filter(([name]) => name !== ':scheme'), /§8\.3\.1/],
  ['no :path', REQUEST.filter(([name]) => name !== ':path'), /§8\.3\.1/],
  ['an empty :path', REQUEST.map(([name, value]): Field => [name, name === ':path' ? '' : value]), /§8\.3\.1/],
  ['two :path', [[':path', '/c'], ...REQUEST], /§8\.3/],
  ['two :authority', [[':authority', 'a'], ...REQUEST], /§8\.3/],
  [':status', [[':status', '200'], ...REQUEST], /§8\.3/],
  ['a pseudo-header field after the others', [...REQUEST, [':authority', 'b']], /§8\.3/],
  ['an empty name', [...REQUEST, ['', 'b']], /§8\.2\.1/],
  ['capitals in a name', [...REQUEST, ['A', 'b']], /§8\.2\.1/],
  ['a space in a name', [...REQUEST, ['a b', 'b']], /§8\.2\.1/],
  ['a name above 0x7f', [...REQUEST, ['\u00e4', 'b']], /§8\.2\.1/],
  ['NUL in a value', [...REQUEST, ['a', 'b\0']], /§8\.2\.1/],
  ['CR in a value', [...REQUEST, ['a', 'b\rc']], /§8\.2\.1/],
  ['LF in a value', [...REQUEST, ['a', 'b\nc']], /§8\.2\.1/],
  ['LF in :path', grpcRequest('/a\nb'), /§8\.2\.1/],
  ['NUL in :authority', grpcRequest('/a', 'a\0'), /§8\.2\.1/],
  ['white space before a value', [...REQUEST, ['a', ' b']], /§8\.2\.1/],
  ['white space after a value', [...REQUEST, ['a', 'b\t']], /§8\.2\.1/],
  ['connection', [...REQUEST, ['connection', 'close']], /§8\.2\.2/],
  ['transfer-encoding', [...REQUEST, ['transfer-encoding', 'chunked']], /§8\.2\.2/],
  ['te that is not trailers', [...REQUEST, ['te', 'gzip']], /§8\.2\.2/],
  ['content-length that is no number', [...REQUEST, ['content-length', '1x']], /RFC 9110 §8\.6/],
  ['content-length that is negative', [...REQUEST, ['content-length', '-1']], /RFC 9110 §8\.6/],
  ['two content-length that differ', [...REQUEST, ['content-length', '1'], ['content-length', '2']], /RFC 9110 §8\.6/],
];

for (const [what, fields, rule] of wrong) {
  test(`refused: ${what}`, (t) => {
    const list = fieldsOf(fields);
    // Twice: what was once found good is not looked at again.
    for (const _ of [1, 2]) t.is((t.throws(() => readRequestHead(list), { instanceOf: StreamFault, message: rule }) as StreamFault).code, Code.protocolError);
  });
}

test('a field that was good in one place is not so in another', (t) => {
  const path: HeaderField = { name: ':path', value: '/a', sensitive: false };
  t.notThrows(() => readRequestHead([...fieldsOf([[':method', 'POST'], [':scheme', 'http']]), path]));
  t.throws(() => readRequestHead([...fieldsOf(REQUEST), path]), { message: /§8\.3/ });
  t.throws(() => checkTrailers([path]), { message: /§8\.3/ });
  t.notThrows(() => checkTrailers(fieldsOf([['a', 'b']])));
});

test('the same content-length twice is one', (t) => {
  t.is(readRequestHead(fieldsOf([...REQUEST, ['content-length', '7'], ['content-length', '7']])).contentLength, 7);
});
