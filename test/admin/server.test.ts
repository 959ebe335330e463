import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { AdminServer, MOST_BODY_BYTES } from '../../src/admin/server.ts';
import { SystemClock } from '../../src/clock.ts';
import { SignetError } from '../../src/errors.ts';
import { createLog } from '../../src/log.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { needsRoot, testIf } from '../support/kernel-conditions.ts';
import { TestProcess, until } from '../support/kernel-processes.ts';
import { filledSource, STATUS } from './filled-source.ts';
import { ask, kernel, openAdmin, RawOperator } from './operator.ts';

function error(body: unknown): { code: string; message: string; next?: string } {
  return (body as { error: { code: string; message: string; next?: string } }).error;
}

function temporary(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), 'signet-admin-dir-'));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

function serverAt(socketPath: string): AdminServer {
  return new AdminServer({ socketPath, kernel, clock: new SystemClock(), log: createLog('silent'), source: filledSource() });
}

test('the socket is for its owner only, in a directory for its owner only', async (t) => {
  const { socketPath, server } = await openAdmin(t, filledSource());
  t.is(statSync(socketPath).mode & 0o777, 0o600);
  t.is(statSync(join(socketPath, '..')).mode & 0o777, 0o700);
  await server.close();
  t.false(existsSync(socketPath));
  await server.close();
});

test('directories above the private one are for all', async (t) => {
  const directory = temporary(t);
  const server = serverAt(join(directory, 'run', 'private', 'admin.sock'));
  t.teardown(() => server.close());
  await server.open();
  t.is(statSync(join(directory, 'run')).mode & 0o777, 0o755);
});

for (const mode of [0o755, 0o710, 0o701, 0o770, 0o1777]) {
  test(`a directory of mode ${mode.toString(8)} is refused, with what to do`, async (t) => {
    const directory = join(temporary(t), 'private');
    mkdirSync(directory);
    chmodSync(directory, mode);
    await t.throwsAsync(serverAt(join(directory, 'admin.sock')).open(), {
      code: 'unavailable',
      message: /may be entered by others .*chmod 700/,
    });
  });
}

test('a file in the place of the socket is left alone', async (t) => {
  const directory = join(temporary(t), 'private');
  mkdirSync(directory, { mode: 0o700 });
  writeFileSync(join(directory, 'admin.sock'), 'precious');
  await t.throwsAsync(serverAt(join(directory, 'admin.sock')).open(), { code: 'in_use' });
});

test('a second agent takes the socket over, and the first one leaves it alone when it goes', async (t) => {
  const first = await openAdmin(t, filledSource());
  const second = await openAdmin(t, filledSource({ overrides: { status: () => ({ ...STATUS, pid: 8 }) } }), {
    socketPath: first.socketPath,
  });
  await first.server.close();
  t.like(await ask(second.socketPath, '/v1/status'), { status: 200, body: { pid: 8 } });
});

test('status and rules are answered as JSON that is not to be kept', async (t) => {
  const { socketPath } = await openAdmin(t, filledSource());
  const status = await ask(socketPath, '/v1/status');
  t.like(status, { status: 200, body: STATUS });
  t.like(status.headers, { 'content-type': 'application/json', 'cache-control': 'no-store', connection: 'close' });
  t.like(await ask(socketPath, '/v1/rules'), { status: 200, body: { rules: [] } });
});

const REFUSED: readonly (readonly [method: string, path: string, status: number, code: string, message: RegExp])[] = [
  ['GET', '/', 404, 'unknown_path', /there is no "\/" here/],
  ['GET', '/v1', 404, 'unknown_path', /./],
  ['GET', '/v1/status/', 404, 'unknown_path', /./],
  ['GET', '/v1/../v1/status', 404, 'unknown_path', /./],
  ['GET', '/V1/STATUS', 404, 'unknown_path', /./],
  ['GET', '/constructor', 404, 'unknown_path', /./],
  ['GET', 'http://localhost/v1/status', 404, 'unknown_path', /./],
  ['POST', '/v1/status', 405, 'method_not_allowed', /does not know POST/],
  ['DELETE', '/v1/rules', 405, 'method_not_allowed', /./],
  ['PUT', '/v1/explain', 405, 'method_not_allowed', /./],
  ['OPTIONS', '/v1/explain', 405, 'method_not_allowed', /./],
  ['GET', '/v1/status?x=1', 400, 'bad_request', /unknown parameter "x"; there are no parameters here/],
  ['POST', '/v1/explain?pid=1', 400, 'bad_request', /unknown parameter "pid"/],
  ['GET', '/v1/explain', 400, 'bad_request', /one of pid and pod is needed/],
  ['GET', '/v1/explain?pid=1&pod=a/b', 400, 'bad_request', /one of pid and pod/],
  ['GET', '/v1/explain?pid=1&pid=2', 400, 'bad_request', /pid is there twice/],
  ['GET', '/v1/explain?pid=0', 400, 'bad_request', /pid is "0"; allowed is a decimal number from 1/],
  ['GET', '/v1/explain?pid=-1', 400, 'bad_request', /./],
  ['GET', '/v1/explain?pid=1e3', 400, 'bad_request', /./],
  ['GET', '/v1/explain?pid=self', 400, 'bad_request', /./],
  ['GET', '/v1/explain?pid=1%2F..%2F2', 400, 'bad_request', /./],
  ['GET', '/v1/explain?pid=', 400, 'bad_request', /./],
  ['GET', '/v1/explain?pid=1&container=web', 400, 'bad_request', /container goes with pod/],
  ['GET', '/v1/explain?pod=web', 400, 'bad_request', /allowed is NAMESPACE\/NAME/],
  ['GET', '/v1/explain?pod=a/b/c', 400, 'bad_request', /./],
  ['GET', '/v1/explain?pod=../etc', 400, 'bad_request', /./],
  ['GET', '/v1/explain?pod=A/b', 400, 'bad_request', /./],
  ['GET', '/v1/explain?pod=a/b&container=..', 400, 'bad_request', /name of a container/],
  ['GET', '/v1/explain?pod=a/b&verbose=1', 400, 'bad_request', /known are pid, pod, container/],
  ['GET', '/v1/explain?pod=a/b', 409, 'no_kubernetes', /does not attest pods/],
  ['GET', '/v1/explain?pid=4194304', 404, 'no_such_process', /there is no process 4194304/],
];

for (const [method, path, status, code, message] of REFUSED) {
  test(`${method} ${path} is refused with ${status} ${code}`, async (t) => {
    const { socketPath } = await openAdmin(t, filledSource());
    const answer = await ask(socketPath, path, { method });
    t.is(answer.status, status);
    t.is(error(answer.body).code, code);
    t.regex(error(answer.body).message, message);
  });
}

test('a user who is neither root nor the agent is refused, and nothing is read of his request', async (t) => {
  const stranger = { ...kernelOf(), peerCredentials: () => ({ pid: 5, uid: 65_534, gid: 65_534, groups: [] }) };
  const { socketPath, lines } = await openAdmin(t, filledSource(), { kernel: stranger });
  for (const [path, options] of [
    ['/v1/status', {}],
    ['/nowhere', {}],
    ['/v1/explain', { method: 'POST', body: 'a' }],
  ] as const) {
    const answer = await ask(socketPath, path, options);
    t.is(answer.status, 403);
    t.regex(error(answer.body).message, /user 65534 may not ask the agent/);
  }
  t.like(
    lines.find(({ event }) => event === 'admin.refused'),
    { uid: 65_534, pid: 5 },
  );
});

test('root is answered even when the agent is not root, and a peer of whom the kernel does not tell is not', async (t) => {
  const root = { ...kernelOf(), peerCredentials: () => ({ pid: 5, uid: 0, gid: 0, groups: [] }) };
  t.is((await ask((await openAdmin(t, filledSource(), { kernel: root })).socketPath, '/v1/status')).status, 200);
  const silent = {
    ...kernelOf(),
    peerCredentials: () => {
      throw new SignetError('kernel', 'getsockopt SO_PEERCRED: EIO');
    },
  };
  t.is((await ask((await openAdmin(t, filledSource(), { kernel: silent })).socketPath, '/v1/status')).status, 403);
});

const STRANGER = `
process.setgroups([]);
process.setgid(65534);
process.setuid(65534);
const { request } = require('node:http');
const asked = request({ socketPath: process.argv[1], path: '/v1/status' }, (response) => {
  let text = '';
  response.on('data', (part) => (text += part));
  response.on('end', () => console.log(response.statusCode + ' ' + text));
});
asked.on('error', (error) => console.log(error.code));
asked.end();
`;

testIf(
  needsRoot,
  "another user cannot connect, and is refused by the kernel's word where a careless hand has opened the directory",
  async (t) => {
    const { socketPath } = await openAdmin(t, filledSource());
    const stranger = (): Promise<string> => new TestProcess(t, process.execPath, ['-e', STRANGER, socketPath]).line();
    t.is(await stranger(), 'EACCES');
    chmodSync(join(socketPath, '..', '..'), 0o755);
    chmodSync(join(socketPath, '..'), 0o755);
    t.is(await stranger(), 'EACCES');
    chmodSync(socketPath, 0o666);
    t.regex(await stranger(), /^403 .*user 65534 may not ask the agent/);
  },
);

function kernelOf(): typeof kernel {
  const { hasPeerPidfd } = kernel;
  const bound = <K extends keyof typeof kernel>(name: K): (typeof kernel)[K] => {
    const member = kernel[name];
    return (typeof member === 'function' ? member.bind(kernel) : member) as (typeof kernel)[K];
  };
  return {
    hasPeerPidfd,
    accept: bound('accept'),
    peerCredentials: bound('peerCredentials'),
    peerPidfd: bound('peerPidfd'),
    effectiveUid: bound('effectiveUid'),
    hasExited: bound('hasExited'),
    openExitWatch: bound('openExitWatch'),
    unreadBytes: bound('unreadBytes'),
    tryLock: bound('tryLock'),
    unlock: bound('unlock'),
    closeDescriptor: bound('closeDescriptor'),
    harden: bound('harden'),
    descriptorLimit: bound('descriptorLimit'),
    trimMemory: bound('trimMemory'),
  };
}

test('a body of more than 1 MiB is refused, announced or not', async (t) => {
  const { socketPath } = await openAdmin(t, filledSource());
  const announced = await RawOperator.connect(t, socketPath);
  announced.socket.write(`POST /v1/explain HTTP/1.1\r\nHost: a\r\nContent-Length: ${MOST_BODY_BYTES + 1}\r\n\r\n`);
  t.regex(await announced.answer(), /^HTTP\/1\.1 413 [^]*"too_large"/);
  const chunked = await RawOperator.connect(t, socketPath);
  chunked.socket.write('POST /v1/explain HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n');
  const chunk = 'a'.repeat(0x8000);
  for (let sent = 0; sent <= MOST_BODY_BYTES && chunked.socket.writable; sent += chunk.length) {
    chunked.socket.write(`8000\r\n${chunk}\r\n`);
  }
  t.regex(await chunked.answer(), /^HTTP\/1\.1 413 [^]*"too_large"/);
});

test('a request that does not come to its end in time is refused, with nothing, half a head or half a body', async (t) => {
  const clock = new FakeClock();
  const { socketPath, server } = await openAdmin(t, filledSource(), { clock, requestMs: 5_000 });
  const said = ['', 'GET /v1/sta', 'POST /v1/explain HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc'];
  const slow = await Promise.all(said.map(() => RawOperator.connect(t, socketPath)));
  for (const [index, text] of said.entries()) slow[index]?.socket.write(text);
  // Those that come after are accepted after: then all three were.
  t.is((await ask(socketPath, '/v1/status')).status, 200);
  clock.advance(4_999);
  t.true(slow.every(({ socket }) => !socket.closed));
  clock.advance(1);
  for (const one of slow) t.regex(await one.answer(), /^HTTP\/1\.1 408 [^]*not complete within 5000 ms/);
  await server.close();
});

test('an answer that takes too long is given up, and one whose asker has gone too', async (t) => {
  const clock = new FakeClock();
  const signals: AbortSignal[] = [];
  const attest = (_process: unknown, signal: AbortSignal): Promise<never> => {
    signals.push(signal);
    return new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
  };
  const { socketPath } = await openAdmin(t, filledSource({ overrides: { unix: { attest } } }), { clock, answerMs: 1_000 });
  const asked = ask(socketPath, `/v1/explain?pid=${process.pid}`);
  await until(() => signals.length === 1, 'the question arrives');
  clock.advance(1_000);
  t.like(await asked, { status: 408, body: { error: { code: 'too_slow' } } });
  const gone = await RawOperator.connect(t, socketPath);
  gone.socket.write(`GET /v1/explain?pid=${process.pid} HTTP/1.1\r\nHost: a\r\n\r\n`);
  await until(() => signals.length === 2, 'the second question arrives');
  gone.socket.destroy();
  await until(() => signals[1]?.aborted === true, 'it is given up');
  t.pass();
});

test('what is not HTTP, a head without end and a second request are refused, and the next operator is answered', async (t) => {
  const { socketPath } = await openAdmin(t, filledSource());
  const wrong = [
    '\0\0\0\0\0\0\0\0',
    'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    `GET / HTTP/1.1\r\nHost: ${'a'.repeat(20_000)}`,
    'GET /v1/status HTTP/1.1\r\nContent-Length: -1\r\n\r\n',
  ];
  for (const text of wrong) {
    const operator = await RawOperator.connect(t, socketPath);
    operator.socket.write(text);
    t.regex(await operator.answer(), /^HTTP\/1\.1 4/, JSON.stringify(text.slice(0, 20)));
  }
  const twice = await RawOperator.connect(t, socketPath);
  twice.socket.write('GET /v1/status HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(2));
  t.is((await twice.answer()).match(/HTTP\/1\.1 200/g)?.length, 1);
  t.is((await ask(socketPath, '/v1/status')).status, 200);
});

test('connections beyond the bound are closed, and room is made when others leave', async (t) => {
  const { socketPath } = await openAdmin(t, filledSource());
  const held: RawOperator[] = [];
  for (let i = 0; i < 16; i += 1) held.push(await RawOperator.connect(t, socketPath));
  const over = await RawOperator.connect(t, socketPath);
  t.is(await over.answer(), '');
  for (const { socket } of held.splice(0, 8)) {
    socket.destroy();
    await once(socket, 'close');
  }
  await until(() => held.length === 8, 'half of them left');
  const answer = await ask(socketPath, '/v1/status').catch(() => ask(socketPath, '/v1/status'));
  t.is(answer.status, 200);
});

test('a source that is not ready, or fails, ends the question and not the server', async (t) => {
  let failing: Error = new SignetError('unavailable', 'the agent is starting');
  const status = (): never => {
    throw failing;
  };
  const { socketPath, lines } = await openAdmin(t, filledSource({ overrides: { status } }));
  t.like(await ask(socketPath, '/v1/status'), {
    status: 503,
    body: { error: { code: 'not_ready', message: 'the agent is starting' } },
  });
  failing = new TypeError('undefined is not a function');
  t.like(await ask(socketPath, '/v1/status'), { status: 500, body: { error: { code: 'failed' } } });
  t.true(lines.some(({ event }) => event === 'admin.failed'));
  t.is((await ask(socketPath, '/v1/rules')).status, 200);
});

test('closing ends what is being answered', async (t) => {
  let asked = false;
  const attest = (_process: unknown, signal: AbortSignal): Promise<never> => {
    asked = true;
    return new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
  };
  const { socketPath, server } = await openAdmin(t, filledSource({ overrides: { unix: { attest } } }));
  const answer = ask(socketPath, `/v1/explain?pid=${process.pid}`).then(
    () => 'answered',
    () => 'ended',
  );
  await until(() => asked, 'the question arrives');
  await server.close();
  t.is(await answer, 'ended');
});
