import { fileURLToPath } from 'node:url';
import type { ServiceDefinition } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import test from 'ava';
import type { ServerCall } from '../../src/grpc/call.ts';
import type { Message } from '../../src/grpc/message.ts';
import { CallFault, Status } from '../../src/grpc/status.ts';
import { Health } from '../../src/workload-api/health.ts';

const published = loadSync(fileURLToPath(new URL('../../proto/health.proto', import.meta.url)), { keepCase: true, defaults: true, enums: String })['grpc.health.v1.Health'] as unknown as ServiceDefinition;

/** The writing side of a call, whose reader takes messages when the test says so. */
class Caller {
  readonly said: unknown[] = [];
  #taken: (() => void) | undefined;
  #closed: (() => void) | undefined;
  readonly #name: string;

  constructor(health: Health, name: 'Check' | 'List' | 'Watch', service = '') {
    this.#name = name;
    const methods = new Map(health.methods<undefined>());
    methods.get(`/grpc.health.v1.Health/${name}`)!.handle(this as unknown as ServerCall<undefined>, published[name]!.requestSerialize({ service }) as Buffer);
  }

  answer(message: Message): void {
    this.said.push(published[this.#name]!.responseDeserialize(message.content));
  }

  send(message: Message, taken: () => void): boolean {
    this.answer(message);
    this.#taken = taken;
    return true;
  }

  onClosed(listener: () => void): void {
    this.#closed = listener;
  }

  take(): void {
    this.#taken?.();
  }

  close(): void {
    this.#closed?.();
  }
}

test('the methods are those of the published service', (t) => {
  t.deepEqual(new Health().methods().map(([path]) => path).sort(), Object.values(published).map(({ path }) => path).sort());
});

test('the agent and its service are not serving until they are, and every other name is not known', (t) => {
  const health = new Health();
  for (const service of ['', 'SpiffeWorkloadAPI']) t.deepEqual(new Caller(health, 'Check', service).said, [{ status: 'NOT_SERVING' }]);
  health.serving = true;
  for (const service of ['', 'SpiffeWorkloadAPI']) t.deepEqual(new Caller(health, 'Check', service).said, [{ status: 'SERVING' }]);
  const fault = t.throws(() => new Caller(health, 'Check', 'other'), { instanceOf: CallFault }) as CallFault;
  t.is(fault.status.code, Status.notFound);
});

test('all names and their states are listed', (t) => {
  t.deepEqual(new Caller(new Health(), 'List').said, [{ statuses: { '': { status: 'NOT_SERVING' }, SpiffeWorkloadAPI: { status: 'NOT_SERVING' } } }]);
});

test('a watcher hears the state at once and each change; one that does not read, only the last', (t) => {
  const health = new Health();
  const watcher = new Caller(health, 'Watch');
  health.serving = true;
  health.serving = false;
  health.serving = true;
  t.deepEqual(watcher.said, [{ status: 'NOT_SERVING' }]);
  watcher.take();
  t.deepEqual(watcher.said, [{ status: 'NOT_SERVING' }, { status: 'SERVING' }]);
  watcher.close();
  watcher.take();
  health.serving = false;
  t.is(watcher.said.length, 2);
});

test('a name that is not known may be watched, and is told so once', (t) => {
  const health = new Health();
  const watcher = new Caller(health, 'Watch', 'other');
  watcher.take();
  health.serving = true;
  t.deepEqual(watcher.said, [{ status: 'SERVICE_UNKNOWN' }]);
});
