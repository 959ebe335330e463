import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import test from 'ava';
import { observe, type Observed } from './observed.ts';
import { http, type Address } from './scrape.ts';

test('an agent that starts is live but not ready; one that serves is both', async (t) => {
  const { telemetry, address, readiness } = await observe();
  t.teardown(() => telemetry.close());
  t.like(await http(address, '/live'), { status: 200, body: 'live\n' });
  const starting = await http(address, '/ready');
  t.is(starting.status, 503);
  t.deepEqual(JSON.parse(starting.body), { ready: false, degraded: false, reasons: [{ code: 'starting', message: 'the agent is starting' }] });
  readiness.phase = 'serving';
  const serving = await http(address, '/ready');
  t.is(serving.status, 200);
  t.deepEqual(JSON.parse(serving.body), { ready: true, degraded: false, reasons: [] });
  t.is(serving.headers['content-type'], 'application/json; charset=utf-8');
});

test('an agent with something away above it is ready and degraded, and tells no stranger what exactly', async (t) => {
  const { telemetry, address, readiness, events } = await observe();
  t.teardown(() => telemetry.close());
  readiness.phase = 'serving';
  events.publish('upstreamFailed', { upstream: 'files', error: '/run/signet/ca/tls.key: permission denied', retryMs: 1 });
  const away = await http(address, '/ready');
  t.is(away.status, 200);
  t.deepEqual(JSON.parse(away.body), { ready: true, degraded: true, reasons: [{ code: 'upstream_away', message: 'the upstream files fails' }] });
  t.false(away.body.includes('tls.key'));
  const metrics = await http(address, '/metrics');
  t.regex(metrics.body, /^signet_readiness_reason\{reason="upstream_away"\} 1$/m);
  t.regex(metrics.body, /^signet_ready 1$/m);
});

for (const [phase, code] of [['superseded', 200], ['stopping', 503]] as const) {
  test(`an agent that is ${phase} answers ${code}, and says why`, async (t) => {
    const { telemetry, address, readiness } = await observe();
    t.teardown(() => telemetry.close());
    readiness.phase = phase;
    const { status, body } = await http(address, '/ready');
    t.is(status, code);
    t.like(JSON.parse(body), { ready: code === 200, degraded: code === 200, reasons: [{ code: phase }] });
  });
}

test('HEAD is GET without the body; other methods and paths are refused', async (t) => {
  const { telemetry, address } = await observe();
  t.teardown(() => telemetry.close());
  const head = await http(address, '/metrics', 'HEAD');
  t.is(head.status, 200);
  t.is(head.body, '');
  t.true(Number(head.headers['content-length']) > 1_000);
  for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH']) {
    const { status, headers } = await http(address, '/metrics', method, 'x'.repeat(10), { 'content-length': '10' });
    t.is(status, 405, method);
    t.is(headers.allow, 'GET, HEAD');
    t.is(headers.connection, 'close');
  }
  for (const path of ['/', '/metrics/', '/debug/pprof', '/constructor', '/__proto__', '//metrics', '/%6detrics']) {
    t.is((await http(address, path)).status, 404, path);
  }
  t.is((await http(address, '/live?verbose=1')).status, 200);
});

test('the content type is that of the text format', async (t) => {
  const { telemetry, address } = await observe();
  t.teardown(() => telemetry.close());
  const { headers } = await http(address, '/metrics');
  t.is(headers['content-type'], 'text/plain; version=0.0.4; charset=utf-8');
  t.is(headers['cache-control'], 'no-store');
});

test('whoever does not finish a request, or sends too much of one, is cut off, and others are answered meanwhile', async (t) => {
  t.timeout(30_000);
  const { telemetry, address } = await observe();
  t.teardown(() => telemetry.close());
  const silent = await open(address, '');
  const slow = await open(address, 'GET /live HTTP/1.1\r\nHost: x\r\nX-A: ');
  const large = await open(address, `GET /live HTTP/1.1\r\nHost: x\r\nX-A: ${'a'.repeat(20_000)}\r\n\r\n`);
  const noHttp = await open(address, '\x16\x03\x01\x02\x00\x01\x00\r\n\r\n');
  t.is((await http(address, '/live')).status, 200);
  t.regex(await everything(large), /^HTTP\/1\.1 431 /);
  t.regex(await everything(noHttp), /^HTTP\/1\.1 400 /);
  t.regex(await everything(slow), /^HTTP\/1\.1 408 /);
  await everything(silent);
  t.pass();
});

test('whoever holds all places gives one up for whoever comes, so that no probe is kept out', async (t) => {
  const { telemetry, address } = await observe();
  t.teardown(() => telemetry.close());
  const held: Socket[] = [];
  for (let i = 0; i < 64; i += 1) held.push(await open(address, 'GET /live HTTP/1.1\r\n'));
  // From another address of the loopback network, as the kubelet's are not the attacker's.
  for (let probe = 0; probe < 3; probe += 1) {
    const socket = connect({ host: address.host, port: address.port, localAddress: '127.0.0.2' });
    socket.end('GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
    t.regex(await everything(socket), /^HTTP\/1\.1 200 /);
  }
  const [oldest] = held;
  await everything(oldest as Socket);
  t.true(oldest?.destroyed, 'the oldest of those that hold most has gone');
  for (const socket of held) socket.destroy();
});

test('an address that the machine does not have is refused', async (t) => {
  const error = await t.throwsAsync(another({ host: '203.0.113.1', port: 9464 }), { code: 'unavailable' });
  t.regex(error.message, /^telemetry\.address 203\.0\.113\.1:9464 cannot be listened on: .*EADDRNOTAVAIL/);
});

test('an agent that follows another one takes its address as soon as it is free', async (t) => {
  const first = await observe();
  const { address } = first;
  const second = await another(address);
  t.teardown(() => second.telemetry.close());
  t.is(second.telemetry.address, undefined);
  second.readiness.phase = 'serving';
  t.is((await http(address, '/ready')).status, 503, 'the first one answers');
  first.telemetry.close();
  second.clock.advance(500);
  for (let i = 0; i < 1_000 && second.telemetry.address === undefined; i += 1) await new Promise((resolve) => setImmediate(resolve));
  t.deepEqual(second.telemetry.address, address);
  t.is((await http(address, '/ready')).status, 200);
});

test('an agent that ends while it waits for the address does not take it any more', async (t) => {
  const first = await observe();
  const { address } = first;
  const second = await another(address);
  second.telemetry.close();
  first.telemetry.close();
  second.clock.advance(60_000);
  t.is(second.clock.pending, 0);
  await t.throwsAsync(http(address, '/live'), { code: 'ECONNREFUSED' });
});

test('closing cuts off whoever is connected', async (t) => {
  const { telemetry, address } = await observe();
  const socket = await open(address, 'GET /live HTTP/1.1\r\n');
  telemetry.close();
  await everything(socket);
  await t.throwsAsync(http(address, '/live'), { code: 'ECONNREFUSED' });
});

async function another(address: Address): Promise<Observed> {
  return observe(() => ({}), address);
}

async function open({ host, port }: Address, bytes: string): Promise<Socket> {
  const socket = connect(port, host);
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  socket.write(bytes);
  return socket;
}

async function everything(socket: Socket): Promise<string> {
  let text = '';
  socket.on('data', (chunk: Buffer) => (text += chunk.toString()));
  if (!socket.destroyed) await new Promise((resolve) => socket.once('close', resolve));
  return text;
}
