import test from 'ava';
import { HeldEntries } from '../../src/registration/held-entries.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { testEntry } from '../support/signers.ts';

function setUp(mostWithdrawn?: number) {
  const clock = new FakeClock();
  const bound = mostWithdrawn === undefined ? {} : { mostWithdrawn };
  const held = new HeldEntries({ withdrawalDelayMs: 10_000, ...bound }, clock, () => undefined);
  const ids = (entries = held.all): string[] => entries.map(({ id }) => id.replace('spiffe://example.org/', ''));
  const give = (...names: string[]): boolean => held.replace(names.map((name) => testEntry(name)));
  return { clock, held, ids, give };
}

test('the oldest of too many withdrawn entries end at once, the others in their time', (t) => {
  const { clock, ids, give, held } = setUp(2);
  for (const name of ['a', 'b', 'c', 'd']) {
    give(name);
    clock.advance(1_000);
  }
  t.deepEqual(ids(), ['d', 'c', 'b']);
  t.deepEqual(ids(held.current), ['d']);
  clock.advance(7_000);
  t.deepEqual(ids(), ['d', 'c', 'b']);
  clock.advance(1_000);
  t.deepEqual(ids(), ['d', 'c']);
  clock.advance(1_000);
  t.deepEqual(ids(), ['d']);
  t.is(clock.pending, 0);
});

test('of entries that are withdrawn together, the first ones stay', (t) => {
  const { ids, give } = setUp(2);
  give('a', 'b', 'c');
  t.true(give());
  t.deepEqual(ids(), ['a', 'b']);
});

test('an entry that comes back is withdrawn no more, and counts among none', (t) => {
  const { ids, give, held } = setUp(1);
  give('a', 'b');
  give('b');
  t.deepEqual(ids(), ['b', 'a']);
  give('a');
  t.deepEqual(ids(), ['a', 'b']);
  t.deepEqual(ids(held.current), ['a']);
});

test('without a bound all withdrawn entries count to the end of the delay', (t) => {
  const { clock, ids, give } = setUp();
  const names = Array.from({ length: 100 }, (_, i) => `e${i}`);
  give(...names);
  give();
  t.is(ids().length, 100);
  clock.advance(10_000);
  t.is(ids().length, 0);
});
