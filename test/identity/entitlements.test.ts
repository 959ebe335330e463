import test from 'ava';
import { SignetError } from '../../src/errors.ts';
import { Entitlements } from '../../src/identity/entitlements.ts';
import type { Entry } from '../../src/spiffe/entry.ts';
import type { Selector } from '../../src/spiffe/selector.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { testEntry } from '../support/signers.ts';

function setUp(attest: (signal: AbortSignal) => Promise<readonly Selector[]> = async () => ['unix:uid:1']) {
  const clock = new FakeClock();
  const listeners = new Set<() => void>();
  let entries: readonly Entry[] = [testEntry('a')];
  let attestations = 0;
  const matcher = {
    match: (selectors: readonly Selector[]) => entries.filter((entry) => entry.selectors.every((selector) => selectors.includes(selector))),
    onChange: (listener: () => void) => (listeners.add(listener), () => void listeners.delete(listener)),
  };
  const attestation = { attest: (_caller: object, signal: AbortSignal) => ((attestations += 1), attest(signal)) };
  const entitlements = new Entitlements<object>(attestation, matcher, clock);
  const become = (next: readonly Entry[]): void => {
    entries = next;
    for (const listener of listeners) listener();
  };
  return { clock, entitlements, become, attestations: () => attestations };
}

test('WA-06: a caller is attested once, however many of its calls come at once or later', async (t) => {
  const { entitlements, attestations } = setUp();
  const caller = {};
  t.is(entitlements.known(caller), undefined);
  const all = await Promise.all(Array.from({ length: 50 }, () => entitlements.of(caller)));
  t.is(new Set(all).size, 1);
  t.is(entitlements.known(caller), all[0]);
  await entitlements.of(caller);
  t.is(attestations(), 1);
  await entitlements.of({});
  t.is(attestations(), 2, 'another connection is another caller');
});

test('when the entries change, an attested caller has the new ones at once, without being attested again', async (t) => {
  const { entitlements, become, attestations } = setUp();
  const caller = {};
  await entitlements.of(caller);
  become([testEntry('a'), testEntry('b'), testEntry('c', { selectors: ['unix:uid:2'] })]);
  t.deepEqual(entitlements.known(caller)?.map(({ id }) => id.at(-1)), ['a', 'b']);
  become([]);
  t.deepEqual(await entitlements.of(caller), []);
  t.is(attestations(), 1);
});

test('whoever asks because of a change gets the new answer', async (t) => {
  const { entitlements, become } = setUp();
  const caller = {};
  await entitlements.of(caller);
  const seen: number[] = [];
  entitlements.onChange(() => seen.push(entitlements.known(caller)?.length ?? -1));
  become([]);
  t.deepEqual(seen, [0]);
});

test('an attestation that fails is not remembered: the next call tries again', async (t) => {
  let isAway = true;
  const { entitlements } = setUp(async () => {
    if (isAway) throw new SignetError('caller_unknown', 'unclear');
    return ['unix:uid:1'];
  });
  const caller = {};
  await t.throwsAsync(entitlements.of(caller), { code: 'caller_unknown' });
  t.is(entitlements.known(caller), undefined, 'it is not taken for a stranger');
  isAway = false;
  t.is((await entitlements.of(caller)).length, 1);
});

test('WE-23: an attestation that takes too long ends with timed_out', async (t) => {
  const { entitlements, clock } = setUp((signal) => new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))));
  const waiting = entitlements.of({});
  clock.advance(5_000);
  await t.throwsAsync(waiting, { code: 'timed_out' });
  t.is(clock.pending, 0);
});
