import test from 'ava';
import { randomBytes } from 'node:crypto';
import type { JsonObject } from '../../src/kubernetes/json.ts';
import { Store, type Stored } from '../../src/kubernetes/store.ts';
import { object } from '../support/kubernetes-api.ts';

type Seen = readonly [string, string, string?];

/** A store of objects trimmed to `uid@version`, without those marked `skip`, and what it has told. */
function recorded(): { store: Store<string>; told: Seen[] } {
  const told: Seen[] = [];
  const trim = (raw: JsonObject): string | undefined => {
    const { uid, resourceVersion } = raw['metadata'] as { uid: string; resourceVersion: string };
    return raw['skip'] === true ? undefined : `${uid}@${resourceVersion}`;
  };
  const store = new Store(trim, (kind, item, before) => told.push(before === undefined ? [kind, item] : [kind, item, before]));
  return { store, told };
}

function replace(store: Store<string>, ...raws: JsonObject[]): void {
  const next = new Map<string, Stored<string>>();
  for (const raw of raws) store.collect(raw, next);
  store.replace(next);
}

test('a list tells what was added, changed and removed, and nothing of what is the same', (t) => {
  const { store, told } = recorded();
  replace(store, object('a', 'ua', 1), object('b', 'ub', 1), object('c', 'uc', 1));
  told.length = 0;
  replace(store, object('a', 'ua', 1), object('b', 'ub', 2), object('d', 'ud', 1));
  t.deepEqual(told, [['removed', 'uc@1', 'uc@1'], ['changed', 'ub@2', 'ub@1'], ['added', 'ud@1']]);
  t.deepEqual([...store.items()], ['ua@1', 'ub@2', 'ud@1']);
  t.is(store.get('default/b'), 'ub@2');
});

test('the same name with another UID is another object: removed, then added', (t) => {
  const { store, told } = recorded();
  replace(store, object('a', 'old', 1));
  told.length = 0;
  store.upsert(object('a', 'new', 2), false);
  t.deepEqual(told, [['removed', 'old@1', 'old@1'], ['added', 'new@2']]);
  told.length = 0;
  replace(store, object('a', 'newer', 3));
  t.deepEqual(told, [['removed', 'new@2', 'new@2'], ['added', 'newer@3']]);
});

test('a duplicated event tells nothing', (t) => {
  const { store, told } = recorded();
  for (let i = 0; i < 3; i++) store.upsert(object('a', 'ua', 1), true);
  store.remove(object('a', 'ua', 2));
  store.remove(object('a', 'ua', 2));
  t.deepEqual(told, [['added', 'ua@1'], ['removed', 'ua@2', 'ua@1']]);
});

test('the same version of an object is not trimmed again, neither from an event nor from a list', (t) => {
  let trimmed = 0;
  const told: string[] = [];
  const store = new Store(() => ({ number: (trimmed += 1) }), (kind) => told.push(kind));
  store.upsert(object('a', 'ua', 1), true);
  store.upsert(object('a', 'ua', 1), false);
  const next = new Map<string, Stored<{ number: number }>>();
  store.collect(object('a', 'ua', 1), next);
  store.replace(next);
  t.is(trimmed, 1);
  t.deepEqual(told, ['added']);
});

test('a MODIFIED that comes after DELETED does not bring the object back; an ADDED does', (t) => {
  const { store, told } = recorded();
  store.upsert(object('a', 'ua', 1), true);
  store.remove(object('a', 'ua', 3));
  store.upsert(object('a', 'ua', 2), false);
  t.is(store.size, 0);
  // It left the selector, and is back.
  store.upsert(object('a', 'ua', 4), true);
  store.upsert(object('a', 'ua', 5), false);
  t.deepEqual(told.map(([kind]) => kind), ['added', 'removed', 'added', 'changed']);
});

test('a DELETED of the predecessor, come late, does not remove its successor', (t) => {
  const { store } = recorded();
  store.upsert(object('a', 'old', 1), true);
  store.upsert(object('a', 'new', 3), true);
  store.remove(object('a', 'old', 2));
  t.is(store.get('default/a'), 'new@3');
  store.upsert(object('a', 'old', 1), false);
  t.is(store.get('default/a'), 'new@3');
});

test('an object that is no longer wanted is removed, and comes back when it is', (t) => {
  const { store, told } = recorded();
  store.upsert(object('a', 'ua', 1), true);
  store.upsert(object('a', 'ua', 2, { skip: true }), false);
  store.upsert(object('a', 'ua', 3, { skip: true }), false);
  store.upsert(object('a', 'ua', 4), false);
  t.deepEqual(told, [['added', 'ua@1'], ['removed', 'ua@1', 'ua@1'], ['added', 'ua@4']]);
});

test('versions are compared for equality only', (t) => {
  const { store, told } = recorded();
  for (const version of ['9', '10', 'x', '2']) store.upsert(object('a', 'ua', version), false);
  t.deepEqual(told.map(([kind, item]) => [kind, item]), [['added', 'ua@9'], ['changed', 'ua@10'], ['changed', 'ua@x'], ['changed', 'ua@2']]);
});

test('what was told adds up to what is there, whatever the events and lists', (t) => {
  const seed = process.env['SIGNET_SEED'] ?? randomBytes(4).toString('hex');
  t.log(`SIGNET_SEED=${seed}`);
  let state = Number.parseInt(seed, 16) >>> 0;
  const pick = (count: number): number => {
    // Numerical Recipes' linear congruential generator: repeatable is all it must be.
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * count);
  };
  const { store, told } = recorded();
  const any = (): JsonObject => object(`n${pick(4)}`, `u${pick(6)}`, pick(5), { skip: pick(8) === 0 });
  for (let step = 0; step < 3_000; step++) {
    const kind = pick(10);
    if (kind === 0) replace(store, ...Array.from({ length: pick(5) }, any));
    else if (kind < 4) store.remove(any());
    else store.upsert(any(), kind < 7);
  }
  const sum: string[] = [];
  for (const [kind, item, before] of told) {
    if (kind !== 'added') {
      const at = sum.indexOf(before ?? '');
      t.not(at, -1, `${kind} of what is not there`);
      sum.splice(at, 1);
    }
    if (kind !== 'removed') sum.push(item);
  }
  t.deepEqual(sum.sort(), [...store.items()].sort());
});
