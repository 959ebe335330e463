import test from 'ava';
import { parseEndpoint, resolveEndpoint, socketPathOf } from '../../src/client/endpoint.ts';

const ACCEPTED: readonly (readonly [rule: string, uri: string, target: string])[] = [
  ['WE-11', 'unix:///run/a.sock', 'unix:///run/a.sock'],
  ['WE-12', 'unix:/run/a.sock', 'unix:///run/a.sock'],
  ['RFC 3986 §3.1', 'UNIX:///run/a.sock', 'unix:///run/a.sock'],
  ['RFC 3986 §2.1', 'unix:///run/a%20b%3Fc.sock', 'unix:///run/a b?c.sock'],
  ['WE-13', 'unix:////run/a.sock', 'unix:////run/a.sock'],
  ['WE-15', 'tcp://127.0.0.1:8000', 'ipv4:127.0.0.1:8000'],
  ['WE-15', 'tcp://[::1]:8000', 'ipv6:[::1]:8000'],
];

const REFUSED: readonly (readonly [rule: string, ...uris: string[]])[] = [
  ['WE-11', '', 'http://127.0.0.1:80', '/run/a.sock', 'run/a.sock', 'npipe:foo', 'unix', '://', 'unix-abstract:a'],
  ['WE-12', 'unix://host/run/a.sock', 'unix://run/a.sock'],
  ['WE-13', 'unix:run/a.sock', 'unix:./a.sock', 'unix:', 'unix://', 'unix:///', 'unix:@abstract'],
  ['WE-14', 'unix:///a.sock?x=1', 'unix:///a.sock?', 'unix:///a.sock#f', 'unix:///a.sock#', 'unix://u@/a.sock'],
  ['WE-15', 'tcp://localhost:8000', 'tcp://:8000', 'tcp://256.0.0.1:80', 'tcp://1.2.3:80', 'tcp://[1.2.3.4]:80', 'tcp://::1:80', 'tcp://[fe80::1%25eth0]:80'],
  ['WE-16', 'tcp://127.0.0.1', 'tcp://127.0.0.1:', 'tcp://127.0.0.1:0', 'tcp://127.0.0.1:65536', 'tcp://127.0.0.1:-1', 'tcp://127.0.0.1:+1'],
  ['WE-18', 'tcp://127.0.0.1:80/', 'tcp://127.0.0.1:80/foo', 'tcp://127.0.0.1:80?x', 'tcp://127.0.0.1:80#f', 'tcp://u@127.0.0.1:80', 'tcp:127.0.0.1:80'],
  ['no control characters', 'unix:///a\n.sock', 'unix:///a%00.sock', 'unix:///a%0a.sock', 'unix:///a%zz.sock', 'unix:///a%ff.sock', 'tcp://127.0.0.1:80\n'],
];

for (const [rule, uri, target] of ACCEPTED) {
  test(`${rule}: ${uri} is accepted`, (t) => {
    t.is(parseEndpoint(uri), target);
  });
}

for (const [rule, ...uris] of REFUSED) {
  for (const uri of uris) {
    test(`${rule}: ${JSON.stringify(uri)} is refused`, (t) => {
      t.like(t.throws(() => parseEndpoint(uri)), { code: 'invalid_endpoint' });
    });
  }
}

test('WE-10: an explicit endpoint wins over the environment', (t) => {
  t.is(resolveEndpoint('unix:///a', { SPIFFE_ENDPOINT_SOCKET: 'unix:///b' }), 'unix:///a');
});

test('WE-10: without an explicit endpoint the environment counts', (t) => {
  t.is(resolveEndpoint(undefined, { SPIFFE_ENDPOINT_SOCKET: 'unix:///b' }), 'unix:///b');
});

test('WE-10: without either, the error names both ways', (t) => {
  for (const env of [{}, { SPIFFE_ENDPOINT_SOCKET: '' }]) {
    const error = t.throws(() => resolveEndpoint(undefined, env));
    t.regex(error.message, /explicitly.*SPIFFE_ENDPOINT_SOCKET/);
  }
});

test('a malformed variable is named in the error', (t) => {
  t.regex(t.throws(() => resolveEndpoint(undefined, { SPIFFE_ENDPOINT_SOCKET: 'x' })).message, /^SPIFFE_ENDPOINT_SOCKET: /);
});

test('the path of a socket is read back from its target', (t) => {
  t.is(socketPathOf(parseEndpoint('unix:/run/a.sock')), '/run/a.sock');
  t.is(socketPathOf(parseEndpoint('unix:////run/a.sock')), '//run/a.sock');
  t.is(socketPathOf(parseEndpoint('tcp://127.0.0.1:1')), undefined);
});
