import { fileURLToPath } from 'node:url';
import type { ServiceDefinition } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import test from 'ava';
import { jwtAuthority, newKeyPair } from '../../src/authority/keys.ts';
import { Message } from '../../src/grpc/message.ts';
import { X509Identities } from '../../src/identity/x509-identities.ts';
import type { TrustBundle } from '../../src/spiffe/bundle.ts';
import type { Entry } from '../../src/spiffe/entry.ts';
import { parseTrustDomain } from '../../src/spiffe/id.ts';
import { TrustStore } from '../../src/trust/trust-store.ts';
import { FeedSwitch } from '../../src/workload-api/feed-switch.ts';
import { BundleFeeds, withDistinctHints, X509SvidFeeds, type Feed } from '../../src/workload-api/feeds.ts';
import { encodeJwtBundles, encodeX509Bundles } from '../../src/workload-api/messages.ts';
import type { StateStream } from '../../src/workload-api/stream.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { evenRandom, fixedKeys, newEvents, ScriptedSigner, settle, testEntry } from '../support/signers.ts';

const PROTO = fileURLToPath(new URL('../../proto/workloadapi.proto', import.meta.url));
const published = loadSync(PROTO, { keepCase: true, defaults: true })['SpiffeWorkloadAPI'] as unknown as ServiceDefinition;
const keys = [await newKeyPair('ec-p256'), await newKeyPair('ec-p256')].map(({ publicKey }) => jwtAuthority(publicKey));

function bundle(roots: readonly string[], jwtKeys = 1): TrustBundle {
  return { trustDomain: parseTrustDomain('example.org'), x509Authorities: roots.map((root) => Buffer.from(root)), jwtAuthorities: keys.slice(0, jwtKeys) };
}

/** A source of trust that says what it is told to. */
function trustOf(first: TrustBundle): { trust: TrustStore; become: (next: TrustBundle) => void } {
  let tell: (next: TrustBundle) => void = () => undefined;
  const source = { current: () => first, onChange: (listener: (next: TrustBundle) => void) => ((tell = listener), () => undefined) };
  return { trust: new TrustStore(source, newEvents()), become: (next) => tell(next) };
}

function setUp() {
  const clock = new FakeClock();
  const signer = new ScriptedSigner(clock);
  const identities = new X509Identities({ keyType: 'ec-p256', ttlMs: 3_600_000, capacity: 100 }, { signer, newKeyPair: fixedKeys, clock, random: evenRandom, events: newEvents() });
  const { trust, become } = trustOf(bundle(['root']));
  return { clock, signer, feeds: new X509SvidFeeds(identities, trust), become };
}

interface Svids {
  readonly svids: readonly { readonly spiffe_id: string; readonly bundle: Buffer; readonly hint: string; readonly x509_svid: Buffer }[];
}

function decoded(message: Message | undefined): Svids {
  return published['FetchX509SVID']!.responseDeserialize(message!.content) as Svids;
}

test('a message is made once for all readers of the same entries, and again only when something in it changes', async (t) => {
  const { feeds, become } = setUp();
  const [one, two] = [feeds.open([testEntry('a')], () => undefined), feeds.open([testEntry('a')], () => undefined)];
  t.is(one.latest(), undefined);
  await settle();
  const first = one.latest();
  t.is(two.latest(), first);
  become(bundle(['root', 'next']));
  const second = one.latest();
  t.not(second, first);
  t.is(two.latest(), second);
  t.is(decoded(second).svids[0]!.bundle.toString(), 'rootnext', 'WA-31: all authorities');
});

test('WA-09: nothing is said until each of the identities has its SVID', async (t) => {
  const { feeds, signer } = setUp();
  const gate = Promise.withResolvers<void>();
  const feed = feeds.open([testEntry('a')], () => undefined);
  await settle();
  signer.gate = gate.promise;
  const both = feeds.open([testEntry('a'), testEntry('b')], () => undefined);
  await settle();
  t.truthy(feed.latest());
  t.is(both.latest(), undefined);
  gate.resolve();
  await settle();
  t.deepEqual(decoded(both.latest()).svids.map(({ spiffe_id }) => spiffe_id), ['spiffe://example.org/a', 'spiffe://example.org/b']);
});

test('what has ended is not said any more', async (t) => {
  const { feeds, signer, clock } = setUp();
  const feed = feeds.open([testEntry('a')], () => undefined);
  await settle();
  signer.isAway = true;
  clock.advance(3_600_000);
  t.is(feed.latest(), undefined);
});

test('several changes in one turn are told once', async (t) => {
  const { feeds, become } = setUp();
  let told = 0;
  const feed = feeds.open([testEntry('a')], () => (told += 1));
  await settle();
  told = 0;
  for (const root of ['1', '2', '3']) become(bundle([root]));
  await settle();
  t.is(told, 1);
  t.is(decoded(feed.latest()).svids[0]!.bundle.toString(), '3');
});

test('a closed feed is told nothing, and the last one lets go of its identities', async (t) => {
  const { feeds, signer, clock, become } = setUp();
  let told = 0;
  const feed = feeds.open([testEntry('a')], () => (told += 1));
  await settle();
  feed.close();
  told = 0;
  become(bundle(['other']));
  clock.advance(3_000_000);
  await settle();
  t.is(told, 0);
  t.is(signer.count, 1, 'nothing was renewed');
});

test('a change of JWT keys leaves the X.509 bundle as it is, byte for byte', (t) => {
  const { trust, become } = trustOf(bundle(['root']));
  const known = (): boolean => true;
  const [x509, jwt] = [new BundleFeeds(trust, encodeX509Bundles, known).open(() => undefined), new BundleFeeds(trust, encodeJwtBundles, known).open(() => undefined)];
  const before = [x509.latest(), jwt.latest()];
  become(bundle(['root'], 2));
  t.deepEqual(x509.latest(), before[0]);
  t.notDeepEqual(jwt.latest(), before[1]);
});

test('WA-23: of several entries with one hint the first stays; those without a hint all do', (t) => {
  const hinted = (path: string, hint: string): Entry => testEntry(path, { hint });
  const chosen = withDistinctHints([hinted('a', 'x'), hinted('b', ''), hinted('c', 'x'), hinted('d', ''), hinted('e', 'X')]);
  t.deepEqual(chosen.map(({ id }) => id.at(-1)), ['a', 'b', 'd', 'e']);
});

/** A feed that says what it is told to. */
class ScriptedFeed implements Feed {
  readonly onChange: () => void;
  state: string | undefined;
  isClosed = false;

  constructor(onChange: () => void) {
    this.onChange = onChange;
  }

  latest(): Message | undefined {
    return this.state === undefined ? undefined : new Message(Buffer.from(this.state));
  }

  close(): void {
    this.isClosed = true;
  }

  say(state: string): void {
    this.state = state;
    this.onChange();
  }
}

function switched(): { feeds: ScriptedFeed[]; offered: string[]; turn: FeedSwitch } {
  const feeds: ScriptedFeed[] = [];
  const offered: string[] = [];
  const stream = { offer: (state: Message) => void offered.push(state.content.toString()) } as unknown as StateStream;
  const turn = new FeedSwitch(stream, (_entries, onChange) => {
    const feed = new ScriptedFeed(onChange);
    feeds.push(feed);
    return feed;
  });
  return { feeds, offered, turn };
}

test('the old feed is read until the new one has something to say, and then let go', (t) => {
  const { feeds, offered, turn } = switched();
  turn.turnTo([testEntry('a')]);
  feeds[0]!.say('a1');
  turn.turnTo([testEntry('a'), testEntry('b')]);
  feeds[0]!.say('a2');
  t.false(feeds[0]!.isClosed);
  feeds[1]!.say('ab');
  t.true(feeds[0]!.isClosed);
  feeds[0]!.state = 'late';
  feeds[1]!.onChange();
  t.deepEqual([...new Set(offered)], ['a1', 'a2', 'ab']);
});

test('a feed that never had anything to say is let go when the next one is turned to', (t) => {
  const { feeds, turn } = switched();
  for (const path of ['a', 'b', 'c']) turn.turnTo([testEntry(path)]);
  t.deepEqual(feeds.map(({ isClosed }) => isClosed), [true, true, false]);
  turn.close();
  t.true(feeds[2]!.isClosed);
  turn.turnTo([testEntry('d')]);
  t.is(feeds.length, 3, 'a closed switch opens nothing');
});

test('a bundle that is not known yet is not told: an empty one would have its readers believe nobody', (t) => {
  const { trust, become } = trustOf(bundle([]));
  let told = 0;
  const feed = new BundleFeeds(trust, encodeX509Bundles, ({ x509Authorities }) => x509Authorities.length > 0).open(() => (told += 1));
  t.is(feed.latest(), undefined);
  become(bundle(['root']));
  t.is(told, 1);
  t.truthy(feed.latest());
});
