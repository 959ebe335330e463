import test, { type ExecutionContext } from 'ava';
import { SystemClock } from '../../src/clock.ts';
import { createLog } from '../../src/log.ts';
import { KubernetesClient, type ListWatch } from '../../src/kubernetes/api-client.ts';
import { Informer, type InformerOptions } from '../../src/kubernetes/informer.ts';
import { objectAt, textAt, type JsonObject } from '../../src/kubernetes/json.ts';
import { CLUSTER_SPIFFE_IDS, PODS } from '../../src/kubernetes/resources.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { FakeApi, answer, object, status, until } from '../support/kubernetes-api.ts';

interface Scene {
  readonly api: FakeApi;
  /** Of the informer only: its client has the machine's. */
  readonly clock: FakeClock;
  readonly informer: Informer<string>;
  readonly told: string[];
  readonly logged: JsonObject[];
  /** How many watches the informer knows to be open(ed). */
  readonly opened: () => number;
}

const trim = (raw: JsonObject): string => {
  const metadata = objectAt(raw, 'metadata');
  return `${textAt(metadata, 'uid')}@${textAt(metadata, 'resourceVersion')}`;
};

async function setUp(t: ExecutionContext, options: Partial<InformerOptions<string>> = {}): Promise<Scene> {
  const api = await FakeApi.start();
  const clock = new FakeClock();
  const client = new KubernetesClient({ credentials: api.credentials(), clock: new SystemClock() });
  let opened = 0;
  const counting: ListWatch = {
    list: (resource, how, onItem) => client.list(resource, how, onItem),
    watch: (resource, how) => client.watch(resource, { ...how, onOpen: () => (how.onOpen?.(), (opened += 1)) }),
  };
  const logged: JsonObject[] = [];
  const log = createLog('debug', { write: (line) => void logged.push(JSON.parse(line) as JsonObject) });
  const random = { bytes: (count: number) => Buffer.alloc(count), fraction: () => 1 };
  const informer = new Informer({ client: counting, resource: PODS, trim, clock, random, log, ...options });
  const told: string[] = [];
  informer.onChange((kind, item) => told.push(`${kind} ${item}`));
  t.teardown(async () => {
    await informer.close();
    client.close();
    await api.stop();
  });
  return { api, clock, informer, told, logged, opened: () => opened };
}

/** Started, synced, and watching. */
async function watching(t: ExecutionContext, objects: JsonObject[], options: Partial<InformerOptions<string>> = {}): Promise<Scene> {
  const scene = await setUp(t, options);
  scene.api.objects = objects;
  scene.informer.start();
  await until(() => scene.opened() === 1, 'the watch');
  return scene;
}

/** The informer waits to try again; moves time to that moment. */
async function waited({ clock }: Scene, ms: number): Promise<void> {
  await until(() => clock.pending === 1, 'waiting before the next attempt');
  clock.advance(ms);
}

test('the first list comes from the cache, and the watch goes on from its version', async (t) => {
  const scene = await setUp(t, { fieldSelector: 'spec.nodeName=node-1' });
  const { api, informer, told } = scene;
  t.false(informer.synced);
  t.is(informer.lastContact, undefined);
  api.objects = [object('a', 'ua', 1)];
  informer.start();
  await informer.whenSynced();
  t.true(informer.synced);
  t.is(informer.lastContact, scene.clock.now());
  t.deepEqual(told, ['added ua@1']);
  await until(() => api.watches.size === 1, 'the watch');
  t.is(api.lists()[0]?.query.get('resourceVersion'), '0');
  t.is(api.watched()[0]?.query.get('resourceVersion'), '100');
  t.is(api.watched()[0]?.query.get('fieldSelector'), 'spec.nodeName=node-1');
});

test('events change the copy, and nothing of the raw objects is kept', async (t) => {
  const { api, informer, told } = await watching(t, [object('a', 'ua', 1)]);
  api.tell('ADDED', object('b', 'ub', 101));
  api.tell('MODIFIED', object('a', 'ua', 102));
  api.tell('MODIFIED', object('a', 'ua', 102));
  api.tell('DELETED', object('b', 'ub', 103));
  await until(() => told.length === 4, 'the events');
  t.deepEqual(told, ['added ua@1', 'added ub@101', 'changed ua@102', 'removed ub@103']);
  t.deepEqual([...informer.items()], ['ua@102']);
  t.is(informer.get('default/a'), 'ua@102');
  t.is(informer.size, 1);
});

test('a watch that is cut goes on from the last event or bookmark, without a new list', async (t) => {
  const scene = await watching(t, []);
  const { api, told } = scene;
  api.tell('ADDED', object('b', 'ub', 101));
  await until(() => told.length === 1, 'the event');
  api.cutWatches();
  await waited(scene, 200);
  await until(() => scene.opened() === 2, 'the second watch');
  t.is(api.watched()[1]?.query.get('resourceVersion'), '101');
  const before = scene.informer.lastContact ?? 0;
  scene.clock.advance(1_000);
  api.bookmark('150');
  await until(() => (scene.informer.lastContact ?? 0) > before, 'the bookmark');
  api.write('{"type":"ADDED","object":{"meta');
  api.cutWatches();
  await waited(scene, 400);
  await until(() => api.watched().length === 3, 'the third watch');
  t.is(api.watched()[2]?.query.get('resourceVersion'), '150');
  t.is(api.lists().length, 1);
});

test('410 Gone in a watch leads to a new list at once, not older than what was seen', async (t) => {
  const scene = await watching(t, [object('a', 'ua', 1), object('b', 'ub', 1)]);
  const { api, told } = scene;
  scene.clock.advance(10_000);
  api.objects = [object('a', 'ua', 2)];
  api.version = 200;
  api.tell('ERROR', status(410, 'Expired', 'too old resource version'));
  await until(() => api.watched().length === 2, 'the second watch');
  t.deepEqual(told.slice(2), ['removed ub@1', 'changed ua@2']);
  t.deepEqual(api.lists().map(({ query }) => query.get('resourceVersion')), ['0', '100']);
  t.is(api.watched()[1]?.query.get('resourceVersion'), '200');
});

test('410 as the answer to the watch itself does the same', async (t) => {
  const scene = await watching(t, [object('a', 'ua', 1)]);
  const { api } = scene;
  scene.clock.advance(10_000);
  api.faults.push(({ query }, response) => query.has('watch') && (answer(response, 410, status(410, 'Gone', 'gone')), true));
  api.watches.forEach(({ response }) => response.end());
  await until(() => api.lists().length === 2 && api.watches.size === 1, 'the second list and the third watch');
  t.is(api.watched().length, 3);
});

test('a server that says 410 each time is not asked in a tight loop', async (t) => {
  const scene = await watching(t, []);
  const { api } = scene;
  for (const ms of [200, 400, 800, 1_600]) {
    const opened = scene.opened();
    api.tell('ERROR', status(410, 'Expired', 'too old'));
    const before = api.lists().length;
    await waited(scene, ms - 1);
    t.is(api.lists().length, before);
    scene.clock.advance(1);
    await until(() => scene.opened() === opened + 1 && api.lists().length === before + 1, 'the next list and watch');
  }
  t.pass();
});

test('a list whose next page has expired is asked for again, the newest then', async (t) => {
  const scene = await setUp(t);
  const { api, informer } = scene;
  api.objects = [object('a', 'ua', 1), object('b', 'ub', 1)];
  api.page = 1;
  api.faults.push(({ query }, response) => query.has('continue') && (answer(response, 410, status(410, 'Expired', 'the continue token is too old')), true));
  informer.start();
  await waited(scene, 200);
  await informer.whenSynced();
  t.is(informer.size, 2);
  t.deepEqual(api.lists().map(({ query }) => [query.get('resourceVersion'), query.get('continue')]), [['0', null], [null, '1'], [null, null], [null, '1']]);
});

test('a server behind what was seen (another replica, a restored backup) is asked for the newest', async (t) => {
  const scene = await watching(t, [object('a', 'ua', 1)], { relistMs: 1_000 });
  const { api, told } = scene;
  scene.clock.advance(10_000);
  api.objects = [object('a', 'ua', 7)];
  api.version = 50;
  const behind = status(504, 'Timeout', 'Timeout: Too large resource version: 100, current: 50', { retryAfterSeconds: 1 });
  api.faults.push(({ query }, response) => query.get('resourceVersion') === '100' && !query.has('watch') && (answer(response, 504, behind), true));
  api.watches.forEach(({ response }) => response.end());
  await waited(scene, 1_000);
  await until(() => told.length === 2, 'the change');
  t.deepEqual(told, ['added ua@1', 'changed ua@7']);
  t.is(api.lists().at(-1)?.query.get('resourceVersion'), null);
});

test('an outage of hours takes nothing away, and its end is noticed within five seconds', async (t) => {
  const scene = await watching(t, [object('a', 'ua', 1), object('b', 'ub', 1)]);
  const { api, clock, informer, told } = scene;
  clock.advance(60_000);
  await api.stop();
  const lost = informer.lastContact ?? 0;
  let attempts = 0;
  for (const end = clock.now() + 3 * 3_600_000; clock.now() < end; attempts += 1) {
    await until(() => clock.pending === 1, 'waiting before the next attempt');
    // As much as a random wait can be, and every wait is one attempt: the time between is skipped.
    clock.advance(5_000);
    if (attempts === 20) clock.advance(3 * 3_600_000);
  }
  t.deepEqual(told, ['added ua@1', 'added ub@1']);
  t.true(informer.synced);
  t.regex(informer.failure ?? '', /ECONNREFUSED/);
  t.true(clock.now() - lost >= 3 * 3_600_000);
  t.is(informer.lastContact, lost);
  api.objects = [object('a', 'ua', 1), object('c', 'uc', 300)];
  api.version = 301;
  await until(() => clock.pending === 1, 'waiting before the next attempt');
  await api.listen();
  clock.advance(5_000);
  await until(() => scene.opened() === 2, 'the watch');
  t.deepEqual(told.slice(2), ['removed ub@1', 'added uc@300']);
  t.is(informer.failure, undefined);
  const events = scene.logged.map((line) => line['event']);
  t.deepEqual(events.filter((event) => event === 'kubernetes.recovered').length, 1);
  t.true(events.filter((event) => event === 'kubernetes.failed').length <= 2, 'a reason is logged once, not at each attempt');
});

test('the wait grows from 200 ms to 5 s, half of it by chance; the server may ask for more, up to 30 s', async (t) => {
  let fraction = 1;
  const random = { bytes: (count: number) => Buffer.alloc(count), fraction: () => fraction };
  const scene = await setUp(t, { random });
  const { api, clock } = scene;
  const failing = (after: Record<string, string> = {}): void => void api.faults.push((_seen, response) => (answer(response, 500, status(500, 'InternalError', 'no'), after), true));
  failing();
  scene.informer.start();
  const exactly = async (ms: number, next: () => unknown): Promise<void> => {
    await until(() => clock.pending === 1, 'waiting before the next attempt');
    const before = api.seen.length;
    clock.advance(ms - 1);
    t.is(clock.pending, 1, `waits longer than ${ms - 1} ms`);
    t.is(api.seen.length, before);
    next();
    clock.advance(1);
    await until(() => api.seen.length > before, `an attempt after ${ms} ms`);
  };
  for (const ms of [200, 400, 800, 1_600, 3_200, 5_000]) await exactly(ms, failing);
  // From the answer to the next attempt on.
  await exactly(5_000, () => (failing(), (fraction = 0)));
  await exactly(2_500, () => failing({ 'retry-after': '8' }));
  await exactly(8_000, () => failing({ 'retry-after': '4000' }));
  await exactly(30_000, () => undefined);
  await scene.informer.whenSynced();
});

test('a nudge ends the wait under way', async (t) => {
  const scene = await setUp(t);
  const { api, clock, informer } = scene;
  api.faults.push((_seen, response) => (answer(response, 500, ''), true));
  informer.start();
  await until(() => clock.pending === 1, 'waiting before the next attempt');
  informer.nudge();
  await informer.whenSynced();
  t.is(api.lists().length, 2);
  informer.nudge();
});

test('a server that ends watches as soon as they are open is not asked in a tight loop', async (t) => {
  const scene = await watching(t, []);
  const { api } = scene;
  for (const ms of [200, 400, 800]) {
    const before = scene.opened();
    api.watches.forEach(({ response }) => response.end());
    await waited(scene, ms - 1);
    t.is(scene.opened(), before);
    scene.clock.advance(1);
    await until(() => scene.opened() === before + 1, 'the next watch');
  }
});

test('a watch that the server ends after its time is followed by the next at once', async (t) => {
  const scene = await watching(t, []);
  const { api, clock } = scene;
  t.is(api.watched()[0]?.query.get('timeoutSeconds'), '450');
  clock.advance(450_000);
  api.watches.forEach(({ response }) => response.end());
  await until(() => scene.opened() === 2, 'the second watch');
  t.is(clock.pending, 0);
  t.is(api.lists().length, 1);
});

test('after half an hour there is a new list although nothing failed', async (t) => {
  const scene = await watching(t, [object('a', 'ua', 1)]);
  const { api, clock, told } = scene;
  clock.advance(1.25 * 30 * 60_000);
  api.objects = [object('a', 'ua', 2)];
  api.watches.forEach(({ response }) => response.end());
  await until(() => api.watched().length === 2, 'the second watch');
  t.deepEqual(told, ['added ua@1', 'changed ua@2']);
  t.is(api.lists()[1]?.query.get('resourceVersion'), '100');
});

test('an empty list after a full one is believed only when the newest list is empty too', async (t) => {
  const scene = await watching(t, [object('a', 'ua', 1)], { relistMs: 1_000 });
  const { api, clock, told } = scene;
  const relist = async (lists: number): Promise<void> => {
    const opened = scene.opened();
    clock.advance(10_000);
    api.watches.forEach(({ response }) => response.end());
    await until(() => api.lists().length === lists && scene.opened() === opened + 1, `list ${lists}`);
  };
  const empty = { kind: 'PodList', metadata: { resourceVersion: '101' }, items: [] };
  api.faults.push(({ query }, response) => !query.has('watch') && (answer(response, 200, empty), true));
  await relist(3);
  t.deepEqual(told, ['added ua@1']);
  t.deepEqual(api.lists().map(({ query }) => query.get('resourceVersion')), ['0', '100', null]);
  api.objects = [];
  await relist(5);
  t.deepEqual(told, ['added ua@1', 'removed ua@1']);
});

test('a list that is due only by time and fails does not end the watch, and is due again after it', async (t) => {
  const scene = await watching(t, [object('a', 'ua', 1)], { relistMs: 1_000 });
  const { api, clock, informer, told } = scene;
  const endWatch = (): void => (clock.advance(10_000), api.watches.forEach(({ response }) => response.end()));
  const failing = (): void => void api.faults.push(({ query }, response) => !query.has('watch') && (answer(response, 500, status(500, 'InternalError', 'no')), true));
  for (const opened of [2, 3]) {
    failing();
    endWatch();
    await until(() => scene.opened() === opened, `watch ${opened}`);
    t.is(api.watched().at(-1)?.query.get('resourceVersion'), '100');
  }
  t.is(api.lists().length, 3);
  api.tell('ADDED', object('b', 'ub', 101));
  await until(() => told.length === 2, 'what happens meanwhile');
  t.is(informer.failure, undefined);
  const notListed = scene.logged.filter((line) => line['event'] === 'kubernetes.not_listed');
  t.is(notListed.length, 1, 'the same reason is logged once');
  api.objects = [object('a', 'ua', 2), object('b', 'ub', 101)];
  endWatch();
  await until(() => told.length === 3, 'the list that works');
  t.is(told[2], 'changed ua@2');
});

test('while the second list fails, the first one is not believed', async (t) => {
  const scene = await watching(t, [object('a', 'ua', 1)], { relistMs: 1_000 });
  const { api, clock, informer, told } = scene;
  clock.advance(10_000);
  api.objects = [];
  api.faults.push(({ query }, response) => !query.has('watch') && !query.has('resourceVersion') && (answer(response, 500, ''), true));
  api.watches.forEach(({ response }) => response.end());
  await until(() => scene.opened() === 2, 'the second watch');
  t.deepEqual(told, ['added ua@1']);
  t.is(informer.size, 1);
  clock.advance(10_000);
  api.watches.forEach(({ response }) => response.end());
  await until(() => told.length === 2, 'the removal');
});

test('an empty first list counts at once', async (t) => {
  const { api, informer } = await watching(t, []);
  t.true(informer.synced);
  t.is(api.lists().length, 1);
});

test('duplicated and reordered events end in the same state', async (t) => {
  const { api, informer, told } = await watching(t, []);
  api.tell('ADDED', object('a', 'ua', 101));
  api.tell('ADDED', object('a', 'ua', 101));
  api.tell('DELETED', object('a', 'ua', 103));
  api.tell('MODIFIED', object('a', 'ua', 102));
  api.tell('DELETED', object('a', 'ua', 103));
  api.tell('MODIFIED', object('b', 'ub', 104));
  api.tell('ADDED', object('b', 'ub', 104));
  api.tell('ADDED', object('b', 'ub2', 105));
  await until(() => told.includes('added ub2@105'), 'the last event');
  t.deepEqual(told, ['added ua@101', 'removed ua@103', 'added ub@104', 'removed ub@104', 'added ub2@105']);
  t.deepEqual([...informer.items()], ['ub2@105']);
});

const notFound = status(404, 'NotFound', 'the server could not find the requested resource');
const absent = (api: FakeApi): unknown => api.faults.push((_seen, response) => (answer(response, 404, notFound), true));

test('a resource that the cluster does not know is empty, and looked for every 30 s or when nudged', async (t) => {
  const scene = await setUp(t, { resource: CLUSTER_SPIFFE_IDS });
  const { api, informer, told } = scene;
  absent(api);
  informer.start();
  await informer.whenSynced();
  t.is(informer.size, 0);
  absent(api);
  await waited(scene, 30_000);
  await until(() => api.seen.length === 2, 'the second look');
  api.objects = [object('a', 'ua', 1)];
  await until(() => scene.clock.pending === 1, 'waiting for the next look');
  informer.nudge();
  await until(() => told.length === 1 && api.watches.size === 1, 'the object');
  t.is(informer.failure, undefined);
});

test('a known resource that is suddenly unknown keeps its objects until that has lasted', async (t) => {
  const scene = await watching(t, [object('a', 'ua', 1)], { resource: CLUSTER_SPIFFE_IDS, relistMs: 1_000 });
  const { api, clock, informer, told } = scene;
  clock.advance(10_000);
  // List, and the second list that is to confirm that there is nothing.
  absent(api);
  api.watches.forEach(({ response }) => response.end());
  await until(() => clock.pending === 1, 'waiting for the next look');
  absent(api);
  informer.nudge();
  await until(() => api.lists().length === 3 && clock.pending === 1, 'the second look');
  t.deepEqual(told, ['added ua@1'], 'a nudge does not make it last');
  absent(api);
  clock.advance(30_000);
  await until(() => told.length === 2, 'the removal');
  t.deepEqual(told, ['added ua@1', 'removed ua@1']);
});

test('a 404 for what every cluster has is a failure', async (t) => {
  const scene = await setUp(t);
  absent(scene.api);
  scene.informer.start();
  await until(() => scene.informer.failure !== undefined, 'the failure');
  t.false(scene.informer.synced);
  t.regex(scene.informer.failure ?? '', /404 NotFound/);
});

test('RBAC\'s own words are the reason of the failure, and logged', async (t) => {
  const scene = await setUp(t);
  const words = 'pods is forbidden: User "system:serviceaccount:signet:agent" cannot list resource "pods" in API group "" at the cluster scope';
  scene.api.faults.push((_seen, response) => (answer(response, 403, status(403, 'Forbidden', words)), true));
  scene.informer.start();
  await until(() => scene.informer.failure !== undefined, 'the failure');
  t.true(scene.informer.failure?.endsWith(`403 Forbidden: ${words}`));
  t.like(scene.logged[0], { level: 'warn', event: 'kubernetes.failed', reason: scene.informer.failure });
});

test('a listener that throws costs the others nothing', async (t) => {
  const scene = await setUp(t);
  const { api, informer } = scene;
  const heard: string[] = [];
  informer.onChange(() => {
    throw new Error('oh');
  });
  informer.onChange((kind) => heard.push(kind));
  api.objects = [object('a', 'ua', 1)];
  informer.start();
  await informer.whenSynced();
  t.deepEqual(heard, ['added']);
  t.like(scene.logged.find((line) => line['event'] === 'kubernetes.listener_failed'), { level: 'error', err: 'oh' });
});

test('closing ends the watch, the waits and whoever waits for the first list', async (t) => {
  const scene = await watching(t, []);
  await scene.informer.close();
  await until(() => scene.api.watches.size === 0, 'the end of the watch');
  const other = await setUp(t);
  await other.api.stop();
  other.informer.start();
  const synced = t.throwsAsync(other.informer.whenSynced(), { message: 'the informer of pods was closed' });
  await until(() => other.clock.pending === 1, 'waiting before the next attempt');
  await other.informer.close();
  await synced;
  t.is(other.clock.pending, 0);
});

test('an informer begins with what another one knew, and tells only what differs from it', async (t) => {
  const first = await watching(t, [object('a', 'ua', 1), object('b', 'ub', 2), object('c', 'uc', 3)]);
  const second = await setUp(t, { seed: [...first.informer.entries()] });
  t.false(second.informer.synced);
  t.deepEqual([...second.informer.items()], ['ua@1', 'ub@2', 'uc@3']);
  second.api.objects = [object('a', 'ua', 1), object('b', 'ub', 9)];
  second.informer.start();
  await second.informer.whenSynced();
  t.deepEqual(second.told, ['removed uc@3', 'changed ub@9']);
});

test('a reload trims everything again, and goes on watching', async (t) => {
  let isLong = false;
  const trimmed = (raw: JsonObject): string => `${trim(raw)}${isLong ? '!' : ''}`;
  const scene = await watching(t, [object('a', 'ua', 1)], { trim: trimmed });
  isLong = true;
  scene.informer.reload();
  await until(() => scene.told.length === 2, 'the new list');
  t.deepEqual(scene.told, ['added ua@1', 'changed ua@1!']);
  await until(() => scene.opened() === 2, 'the second watch');
  scene.api.tell('ADDED', object('b', 'ub', 101));
  await until(() => scene.told.length === 3, 'the event');
  t.is(scene.told[2], 'added ub@101!');
  t.is(scene.informer.failure, undefined);
});

test('a reload that is asked for while a list is under way is not lost', async (t) => {
  let isLong = false;
  const trimmed = (raw: JsonObject): string => {
    const item = `${trim(raw)}${isLong ? '!' : ''}`;
    if (!isLong) scene.informer.reload();
    isLong = true;
    return item;
  };
  const scene = await setUp(t, { trim: trimmed });
  scene.api.objects = [object('a', 'ua', 1)];
  scene.informer.start();
  await until(() => scene.told.length === 2, 'both lists');
  t.deepEqual(scene.told, ['added ua@1', 'changed ua@1!']);
});

test('a watch on which nothing was ever sent is asked for again without being called a failure', async (t) => {
  const api = await FakeApi.start();
  const clock = new FakeClock();
  // Two bookmark periods of silence end a watch; here they are over soon.
  const client = new KubernetesClient({ credentials: api.credentials(), clock: new SystemClock(), bookmarkMs: 20 });
  const random = { bytes: (count: number) => Buffer.alloc(count), fraction: () => 1 };
  const informer = new Informer({ client, resource: PODS, trim, clock, random });
  t.teardown(async () => {
    await informer.close();
    client.close();
    await api.stop();
  });
  informer.start();
  for (let watches = 1; watches <= 3; watches += 1) {
    await until(() => api.watched().length === watches, 'the next watch');
    t.is(informer.failure, undefined);
    if (watches < 3) await until(() => clock.pending === 1, 'waiting before the next watch');
    clock.advance(60_000);
  }
  t.is(api.lists().length, 1);
});
