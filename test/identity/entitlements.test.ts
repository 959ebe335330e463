import test from 'ava';
import { SignetError } from '../../src/errors.ts';
import { Entitlements, type CallerAttestation, type EntryMatcher } from '../../src/identity/entitlements.ts';
import type { Entry } from '../../src/spiffe/entry.ts';
import type { Selector } from '../../src/spiffe/selector.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { testEntry } from '../support/signers.ts';

function setUp(
  attest: (signal: AbortSignal) => Promise<readonly Selector[]> = async () => ['unix:uid:1'],
  attestor: Partial<CallerAttestation<object>> = {},
  more: Partial<EntryMatcher> = {},
) {
  const clock = new FakeClock();
  const listeners = new Set<() => void>();
  let entries: readonly Entry[] = [testEntry('a')];
  let attestations = 0;
  const matcher = {
    match: (selectors: readonly Selector[]) => entries.filter((entry) => entry.selectors.every((selector) => selectors.includes(selector))),
    onChange: (listener: () => void) => (listeners.add(listener), () => void listeners.delete(listener)),
    ...more,
  };
  const attestation = {
    ...attestor,
    attest: (_caller: object, signal: AbortSignal) => ((attestations += 1), attest(signal)),
  };
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

test('whoever follows a caller is told when its entries have become others, and asks for the new ones', async (t) => {
  const { entitlements, become } = setUp();
  const caller = {};
  await entitlements.of(caller);
  const seen: number[] = [];
  const stop = entitlements.follow(caller, () => seen.push(entitlements.known(caller)?.length ?? -1));
  become([]);
  become([]);
  t.deepEqual(seen, [0], 'the second time nothing was different');
  const one = [testEntry('a')];
  become(one);
  become([...one, testEntry('c', { selectors: ['unix:uid:2'] })]);
  t.deepEqual(seen, [0, 1], 'an entry of somebody else is no difference');
  stop();
  become([]);
  t.deepEqual(seen, [0, 1]);
});

test('what is said of a caller can change while it is connected, and only its followers are told', async (t) => {
  const listeners = new Set<(callers: readonly object[]) => void>();
  const facts = new Map<object, readonly Selector[]>();
  const { entitlements } = setUp(async () => ['unix:uid:1'], {
    current: (caller) => facts.get(caller),
    onChange: (listener) => (listeners.add(listener), () => void listeners.delete(listener)),
  });
  const [one, other] = [{}, {}];
  await Promise.all([entitlements.of(one), entitlements.of(other)]);
  const told: string[] = [];
  entitlements.follow(one, () => told.push('one'));
  entitlements.follow(other, () => told.push('other'));
  facts.set(one, ['unix:uid:2']);
  for (const listener of listeners) listener([one]);
  t.deepEqual(told, ['one']);
  t.deepEqual(entitlements.known(one), []);
  t.is(entitlements.known(other)?.length, 1);
});

test('a caller that is forgotten is attested anew, and the attestors are told', async (t) => {
  const forgotten: object[] = [];
  const { entitlements, attestations } = setUp(async () => ['unix:uid:1'], { forget: (caller) => void forgotten.push(caller) });
  const caller = {};
  await entitlements.of(caller);
  entitlements.forget(caller);
  t.deepEqual(forgotten, [caller]);
  t.is(entitlements.known(caller), undefined);
  await entitlements.of(caller);
  t.is(attestations(), 2);
});

test('none is no answer while something is not known yet: it is refused for now, and told once it is sure', async (t) => {
  let isComplete = false;
  const { entitlements, become } = setUp(async () => ['unix:uid:9'], {}, { isComplete: () => isComplete });
  const caller = {};
  await t.throwsAsync(entitlements.of(caller), { code: 'unavailable' });
  let told = 0;
  entitlements.follow(caller, () => (told += 1));
  become([]);
  t.is(told, 0);
  isComplete = true;
  become([]);
  t.is(told, 1);
  t.deepEqual(await entitlements.of(caller), []);
});

test('an attestation waits until the rules are known', async (t) => {
  const known = Promise.withResolvers<void>();
  const { entitlements, clock } = setUp(async () => ['unix:uid:1'], {}, { whenKnown: () => known.promise });
  const waiting = entitlements.of({});
  known.resolve();
  t.is((await waiting).length, 1);
  t.is(clock.pending, 0);
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
