import test from 'ava';
import { EventBus } from '../../src/events.ts';
import { EntryRegistry } from '../../src/registration/entry-registry.ts';
import type { Entry } from '../../src/spiffe/entry.ts';
import { parseSpiffeId } from '../../src/spiffe/id.ts';
import { FakeClock } from '../support/fake-clock.ts';

function entry(path: string, selectors: readonly string[], more: Partial<Entry> = {}): Entry {
  const id = parseSpiffeId(`spiffe://example.org/${path}`);
  return { id, selectors, x509TtlMs: undefined, jwtTtlMs: undefined, dnsNames: [], hint: '', priority: 0, ...more };
}

function registry(entries: readonly Entry[]): { registry: EntryRegistry; clock: FakeClock; changes: () => number } {
  const clock = new FakeClock();
  const made = new EntryRegistry(entries, { withdrawalDelayMs: 10_000 }, clock, new EventBus());
  let count = 0;
  made.onChange(() => (count += 1));
  return { registry: made, clock, changes: () => count };
}

const paths = (entries: readonly Entry[]): string[] => entries.map(({ id }) => id.slice('spiffe://example.org/'.length));

test('an entry applies when all of its selectors are the caller\'s', (t) => {
  const { registry: r } = registry([entry('a', ['unix:uid:1']), entry('b', ['unix:uid:1', 'unix:gid:1']), entry('c', ['unix:uid:2'])]);
  t.deepEqual(paths(r.match(['unix:uid:1'])), ['a']);
  t.deepEqual(paths(r.match(['unix:uid:1', 'unix:gid:1'])), ['a', 'b']);
  t.deepEqual(r.match([]), []);
});

test('WA-74: the order is by priority, then by the bytes of the ID, whatever the order of the file', (t) => {
  const entries = [entry('b', ['unix:uid:1']), entry('z', ['unix:uid:1'], { priority: 5 }), entry('a', ['unix:uid:1']), entry('A', ['unix:uid:1'])];
  t.deepEqual(paths(registry(entries).registry.match(['unix:uid:1'])), ['z', 'A', 'a', 'b']);
  t.deepEqual(paths(registry([...entries].reverse()).registry.match(['unix:uid:1'])), ['z', 'A', 'a', 'b']);
});

test('two ways to one identity are one identity, unless their hints differ', (t) => {
  const entries = [entry('a', ['unix:uid:1']), entry('a', ['unix:gid:1']), entry('a', ['unix:user:web'], { hint: 'other' })];
  t.is(registry(entries).registry.match(['unix:uid:1', 'unix:gid:1', 'unix:user:web']).length, 2);
});

test('a new entry counts at once, a missing one after the delay', (t) => {
  const { registry: r, clock, changes } = registry([entry('a', ['unix:uid:1'])]);
  r.replace([entry('b', ['unix:uid:1'])]);
  t.deepEqual(paths(r.match(['unix:uid:1'])), ['a', 'b']);
  clock.advance(9_999);
  t.deepEqual(paths(r.match(['unix:uid:1'])), ['a', 'b']);
  clock.advance(1);
  t.deepEqual(paths(r.match(['unix:uid:1'])), ['b']);
  t.is(changes(), 2);
});

test('an entry that comes back within the delay was never gone', (t) => {
  const { registry: r, clock } = registry([entry('a', ['unix:uid:1'])]);
  r.replace([]);
  clock.advance(5_000);
  r.replace([entry('a', ['unix:uid:1'])]);
  clock.advance(60_000);
  t.deepEqual(paths(r.match(['unix:uid:1'])), ['a']);
});

test('reading the file again does not prolong what was withdrawn', (t) => {
  const { registry: r, clock } = registry([entry('a', ['unix:uid:1'])]);
  r.replace([]);
  clock.advance(6_000);
  r.replace([]);
  clock.advance(4_000);
  t.deepEqual(r.match(['unix:uid:1']), []);
});

test('a new version of an entry takes the place of the old one at once', (t) => {
  const { registry: r } = registry([entry('a', ['unix:uid:1'])]);
  r.replace([entry('a', ['unix:uid:1'], { dnsNames: ['web'] })]);
  t.deepEqual(r.match(['unix:uid:1']).map(({ dnsNames }) => dnsNames), [['web']]);
});

const POD_A = ['k8s:ns:web', 'k8s:pod-uid:aaaa', 'unix:uid:0'];
const POD_B = ['k8s:ns:web', 'k8s:pod-uid:bbbb', 'unix:uid:0'];

test('an entry by Unix facts alone never applies inside a container, whose root is uid 0 too', (t) => {
  const { registry: r } = registry([entry('host', ['unix:uid:0']), entry('web', ['k8s:ns:web']), entry('both', ['k8s:ns:web', 'unix:uid:0'])]);
  t.deepEqual(paths(r.match(POD_A)), ['both', 'web']);
  t.deepEqual(paths(r.match(['unix:uid:0'])), ['host']);
});

test('two pods never share an entry, so that they never share a key; one pod always has the same', (t) => {
  const { registry: r } = registry([entry('web', ['k8s:ns:web'])]);
  const [a] = r.match(POD_A);
  const [b] = r.match(POD_B);
  t.deepEqual(a?.selectors, ['k8s:ns:web', 'k8s:pod-uid:aaaa']);
  t.deepEqual(b?.selectors, ['k8s:ns:web', 'k8s:pod-uid:bbbb']);
  t.is(r.match(POD_A)[0], a, 'a stream is not disturbed by a second look');
});

test('an entry that was for one pod anyway is not changed', (t) => {
  const own = entry('web', ['k8s:pod-uid:aaaa']);
  t.is(registry([own]).registry.match(POD_A)[0], own);
});

test('entries that are read again without a difference stay the same objects', (t) => {
  const { registry: r } = registry([entry('a', ['unix:uid:1'])]);
  const [before] = r.match(['unix:uid:1']);
  r.replace([entry('a', ['unix:uid:1'])]);
  t.is(r.match(['unix:uid:1'])[0], before);
});
