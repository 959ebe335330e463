import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync, closeSync, constants, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, readSync, renameSync, rmSync, statSync, symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { EventBus } from '../../src/events.ts';
import type { Log, LogFields } from '../../src/log.ts';
import { openAudit, type AuditLog } from '../../src/telemetry/audit.ts';
import { FakeClock } from '../support/fake-clock.ts';

const START = '2030-01-01T00:00:00.000Z';
const spiffeId = 'spiffe://example.org/ns/shop/sa/web';
const POD = '0f3ae2a8-0a9d-4a3a-9d0e-4dbd5c6cf0f1';

interface Audited {
  readonly events: EventBus;
  readonly clock: FakeClock;
  readonly audit: AuditLog;
  readonly path: string;
  readonly logged: LogFields[];
  readonly lines: (path?: string) => Record<string, unknown>[];
}

function setUp(t: ExecutionContext, prepare: (path: string) => void = () => undefined): Audited {
  const directory = mkdtempSync(join(tmpdir(), 'signet-audit-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const path = join(directory, 'audit.log');
  prepare(path);
  const events = new EventBus();
  const clock = new FakeClock();
  const logged: LogFields[] = [];
  const write = (fields: LogFields): void => void logged.push(fields);
  const log: Log = { debug: write, info: write, warn: write, error: write };
  const describePod = (uid: string) => (uid === POD ? { namespace: 'shop', name: 'web-1', uid: POD, serviceAccount: 'web' } : undefined);
  const audit = openAudit(path, { events, clock, log, describePod });
  t.teardown(() => audit.close());
  const lines = (from = path): Record<string, unknown>[] =>
    readFileSync(from, 'utf8').split('\n').slice(0, -1).map((line) => JSON.parse(line) as Record<string, unknown>);
  return { events, clock, audit, path, logged, lines };
}

/** Waits, bounded, for what happens in files. */
async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 2_000; i += 1) {
    if (condition()) return;
    await new Promise((resolve) => setImmediate(resolve));
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  throw new Error('it did not happen');
}

test('an issuance, what was served and a refusal are a line each, with what is known of the caller', async (t) => {
  const { events, audit, lines } = setUp(t);
  const notAfter = Date.parse('2030-01-01T01:00:00Z');
  events.publish('issued', { kind: 'x509', spiffeId, serial: '0a1b', notAfter, renewal: false, durationMs: 1, podUid: POD });
  events.publish('issued', { kind: 'jwt', spiffeId, kid: 'key-1', notAfter, renewal: true, durationMs: 1 });
  events.publish('served', { kind: 'x509', method: 'FetchX509SVID', svids: [{ spiffeId, serial: '0a1b', notAfter }], pid: 7, uid: 1000, podUid: POD });
  events.publish('refused', { reason: 'no_identity', method: 'FetchJWTSVID', pid: 8, uid: 0, podUid: 'unknown', detail: 'a "reason"\nwith lines' });
  await audit.close();
  const pod = { namespace: 'shop', name: 'web-1', uid: POD };
  t.deepEqual(lines(), [
    { time: START, event: 'issued', kind: 'x509', spiffe_id: spiffeId, serial: '0a1b', not_after: '2030-01-01T01:00:00.000Z', pod, service_account: 'web' },
    { time: START, event: 'issued', kind: 'jwt', spiffe_id: spiffeId, kid: 'key-1', not_after: '2030-01-01T01:00:00.000Z' },
    {
      time: START, event: 'served', kind: 'x509', spiffe_id: spiffeId, serial: '0a1b', not_after: '2030-01-01T01:00:00.000Z',
      pid: 7, uid: 1000, pod, service_account: 'web', method: 'FetchX509SVID',
    },
    { time: START, event: 'refused', pid: 8, uid: 0, pod: { uid: 'unknown' }, method: 'FetchJWTSVID', reason: 'no_identity', detail: 'a "reason"\nwith lines' },
  ]);
  t.deepEqual(audit.figures, { written: 4, dropped: 0, failures: 0 });
});

test('a message with several SVIDs is a line for each', async (t) => {
  const { events, audit, lines } = setUp(t);
  const svids = ['a', 'b'].map((name) => ({ spiffeId: `spiffe://example.org/${name}`, serial: name, notAfter: 0 }));
  events.publish('served', { kind: 'x509', method: 'FetchX509SVID', svids, pid: 7, uid: 1 });
  await audit.close();
  t.deepEqual(lines().map((line) => line['spiffe_id']), ['spiffe://example.org/a', 'spiffe://example.org/b']);
});

test('the file is for its owner alone, is appended to, and keeps the mode that an operator gave it', async (t) => {
  const fresh = setUp(t);
  await fresh.audit.close();
  t.is(statSync(fresh.path).mode & 0o777, 0o600);
  const kept = setUp(t, (path) => {
    writeFileSync(path, '{"old":true}\n');
    chmodSync(path, 0o640);
  });
  kept.events.publish('refused', { reason: 'no_identity', uid: 1 });
  await kept.audit.close();
  t.is(statSync(kept.path).mode & 0o777, 0o640);
  t.deepEqual(kept.lines().map((line) => line['old'] ?? line['reason']), [true, 'no_identity']);
});

test('what repeats is written once, and summed up after ten seconds', async (t) => {
  const { events, clock, audit, lines } = setUp(t);
  const svids = [{ spiffeId, notAfter: 1_000 }];
  for (let i = 0; i < 1_000; i += 1) {
    events.publish('served', { kind: 'jwt', method: 'FetchJWTSVID', svids, pid: 7, uid: 1 });
    // Whoever floods the agent changes its pid with each attempt.
    events.publish('refused', { reason: 'connection_rate', pid: i, uid: 66 });
    events.publish('refused', { reason: 'no_identity', pid: i % 2, uid: 66 });
  }
  events.publish('served', { kind: 'jwt', method: 'FetchJWTSVID', svids, pid: 8, uid: 1 });
  clock.advance(10_000);
  await audit.close();
  const told = lines().map(({ event, reason, pid, count }) => [reason ?? event, pid, count]);
  t.deepEqual(told, [
    ['served', 7, undefined],
    ['connection_rate', 0, undefined],
    ['no_identity', 0, undefined],
    ['no_identity', 1, undefined],
    ['served', 8, undefined],
    ['served', 7, 999],
    ['connection_rate', 0, 999],
    ['no_identity', 0, 499],
    ['no_identity', 1, 499],
  ]);
});

test('sums that are due when the agent ends are written', async (t) => {
  const { events, audit, lines } = setUp(t);
  for (let i = 0; i < 3; i += 1) events.publish('refused', { reason: 'no_identity', uid: 1 });
  await audit.close();
  t.deepEqual(lines().map(({ count }) => count), [undefined, 2]);
});

test('after the file was moved away, reopening goes on in a new one and loses nothing', async (t) => {
  const { events, audit, path, lines } = setUp(t);
  let sent = 0;
  const send = (count: number): void => {
    for (let i = 0; i < count; i += 1) events.publish('issued', { kind: 'jwt', spiffeId, kid: `${(sent += 1)}`, notAfter: 0, renewal: false, durationMs: 1 });
  };
  for (let turn = 1; turn <= 5; turn += 1) {
    send(200);
    await until(() => existsSync(path));
    renameSync(path, `${path}.${turn}`);
    send(200);
    audit.reopen();
    send(1);
  }
  await audit.close();
  const all = [1, 2, 3, 4, 5].flatMap((turn) => lines(`${path}.${turn}`)).concat(lines());
  t.deepEqual(all.map((line) => Number(line['kid'])), Array.from({ length: sent }, (_, index) => index + 1));
  t.is(statSync(path).mode & 0o777, 0o600);
});

test('a file that cannot be made is told, counted and tried again; what was meant for it is kept meanwhile', async (t) => {
  const { events, clock, audit, path, logged, lines } = setUp(t, (wanted) => {
    // A directory where the file should be.
    mkdirSync(wanted);
  });
  events.publish('refused', { reason: 'no_identity', uid: 1 });
  await until(() => audit.figures.failures === 1);
  t.like(logged[0], { event: 'audit.failed', path, duration_ms: 1_000 });
  clock.advance(1_000);
  await until(() => audit.figures.failures === 2);
  t.like(logged[1], { duration_ms: 2_000 });
  rmSync(path, { recursive: true });
  clock.advance(2_000);
  await until(() => audit.figures.written === 1);
  t.is(lines().length, 1);
});

test('reopening does not wait for the next attempt', async (t) => {
  const { events, audit, path } = setUp(t, (wanted) => void mkdirSync(wanted));
  await until(() => audit.figures.failures === 1);
  rmSync(path, { recursive: true });
  events.publish('refused', { reason: 'no_identity', uid: 1 });
  audit.reopen();
  await until(() => audit.figures.written === 1);
  t.pass();
});

test('a link and a FIFO in the place of the file are not written to', async (t) => {
  const victim = mkdtempSync(join(tmpdir(), 'signet-audit-victim-'));
  t.teardown(() => rmSync(victim, { recursive: true, force: true }));
  const target = join(victim, 'shadow');
  const link = setUp(t, (path) => symlinkSync(target, path));
  await until(() => link.audit.figures.failures === 1);
  t.false(existsSync(target));
  const fifo = setUp(t, (path) => void spawnSync('mkfifo', [path]));
  await until(() => fifo.audit.figures.failures === 1);
  for (const { logged } of [link, fifo]) t.is(logged[0]?.event, 'audit.failed');
});

test('a queue that is full takes no more, and what is lost is counted', async (t) => {
  const { events, audit } = setUp(t, (path) => void mkdirSync(path));
  await until(() => audit.figures.failures === 1);
  for (let i = 0; i < 20_000; i += 1) events.publish('issued', { kind: 'jwt', spiffeId, kid: `${i}`, notAfter: 0, renewal: false, durationMs: 1 });
  t.is(audit.figures.dropped, 20_000 - 16_384);
  await audit.close();
  t.is(audit.figures.dropped, 20_000);
  t.is(audit.figures.written, 0);
});

test('a long detail is cut', async (t) => {
  const { events, audit, lines } = setUp(t);
  events.publish('refused', { reason: 'bad_request', detail: 'x'.repeat(100_000) });
  await audit.close();
  t.is(String(lines()[0]?.['detail']).length, 512);
});

test('after its end nothing is written any more', async (t) => {
  const { events, audit, lines } = setUp(t);
  await audit.close();
  events.publish('refused', { reason: 'no_identity', uid: 1 });
  t.deepEqual(lines(), []);
  t.false(events.isHeard('served'));
});

test('a reader of standard output that has stopped holds nothing up; the agent goes on, ends, and counts what is lost', async (t) => {
  const fifo = join(mkdtempSync(join(tmpdir(), 'signet-audit-')), 'fifo');
  t.teardown(() => rmSync(dirname(fifo), { recursive: true, force: true }));
  spawnSync('mkfifo', [fifo]);
  const output = openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK);
  t.teardown(() => closeSync(output));
  const figures = await writeTo(t, output);
  t.true(figures.written > 100);
  const read = Buffer.alloc(1024 * 1024);
  const whole = read.toString('utf8', 0, readSync(output, read)).split('\n').slice(0, -1);
  t.is(whole.length, figures.written);
  for (const [index, line] of whole.entries()) t.is((JSON.parse(line) as { kid: string }).kid, `${index}`);
});

test('the same where standard output is a socket, as under systemd', async (t) => {
  await writeTo(t, 'pipe');
  t.pass();
});

/** A process that writes much more than `output` holds. Nobody reads it until it has ended. */
async function writeTo(t: ExecutionContext, output: number | 'pipe'): Promise<{ written: number; dropped: number }> {
  const child = spawn(process.execPath, [fileURLToPath(new URL('audit-to-stdout.ts', import.meta.url))], { stdio: ['ignore', output, 'pipe'] });
  t.teardown(() => child.kill('SIGKILL'));
  let told = '';
  child.stderr?.on('data', (chunk: Buffer) => (told += chunk.toString()));
  const exited = once(child, 'exit');
  await once(child.stderr!, 'end');
  const [code] = (await exited) as [number | null];
  t.is(code, 0, told);
  const figures = JSON.parse(told) as { written: number; dropped: number };
  t.is(figures.written + figures.dropped, 20_000);
  t.true(figures.dropped > 0);
  return figures;
}

test('a program that forks for each attempt has sixteen lines, and one with how often more it was refused', (t) => {
  const { events, clock, lines, audit } = setUp(t);
  for (let pid = 1_000; pid < 3_000; pid += 1) events.publish('refused', { reason: 'missing_header', method: 'FetchX509SVID', uid: 7, pid, podUid: POD });
  events.publish('refused', { reason: 'missing_header', method: 'FetchX509SVID', uid: 8, pid: 9_000 });
  clock.advance(10_000);
  return audit.close().then(() => {
    const written = lines().filter(({ event }) => event === 'refused');
    t.is(written.filter(({ uid, count }) => uid === 7 && count === undefined).length, 17);
    t.is(written.find(({ uid, count }) => uid === 7 && count !== undefined)?.['count'], 2_000 - 17);
    t.is(written.filter(({ uid }) => uid === 8).length, 1, 'others are not summed up with it');
  });
});

test('an order about the signing keys is written with who gave it', async (t) => {
  const { events, lines, audit } = setUp(t);
  events.publish('authorityCommanded', { command: 'taint', kind: 'jwt', id: 'abc', uid: 0, pid: 12, outcome: 'done' });
  await audit.close();
  t.deepEqual(lines(), [{ time: START, event: 'commanded', command: 'taint', kind: 'jwt', id: 'abc', pid: 12, uid: 0, outcome: 'done' }]);
});
