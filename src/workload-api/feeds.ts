import type { ServedSvid } from '../events.ts';
import { Message } from '../grpc/message.ts';
import type { X509Identities, X509Lease } from '../identity/x509-identities.ts';
import { entryKey, type Entry } from '../spiffe/entry.ts';
import type { TrustBundle } from '../spiffe/bundle.ts';
import type { TrustStore } from '../trust/trust-store.ts';
import { encodeX509Svids } from './messages.ts';

/** One complete state after another, as a message. Who reads it gets the newest, never a queue. */
export interface Feed {
  /** The newest state, or undefined while there is none. */
  latest(): Message | undefined;
  close(): void;
}

const svidsIn = new WeakMap<Message, readonly ServedSvid[]>();

/** What stands in a state that an X.509-SVID feed gave out, as it may be told; nothing for any other state. */
export function servedIn(state: Message): readonly ServedSvid[] {
  return svidsIn.get(state) ?? [];
}

/** Feeds of the trust bundle: one for all readers. */
export class BundleFeeds {
  readonly #trust: TrustStore;
  readonly #encode: (bundle: TrustBundle) => Buffer;
  readonly #isKnown: (bundle: TrustBundle) => boolean;
  #encoded: { bundle: TrustBundle; message: Message } | undefined;

  /** @param isKnown false while the bundle is not known yet: an empty one would have its readers believe nobody. */
  constructor(trust: TrustStore, encode: (bundle: TrustBundle) => Buffer, isKnown: (bundle: TrustBundle) => boolean) {
    this.#trust = trust;
    this.#encode = encode;
    this.#isKnown = isKnown;
  }

  open(onChange: () => void): Feed {
    const stop = this.#trust.onChange(onChange);
    return { latest: () => this.#latest(), close: stop };
  }

  #latest(): Message | undefined {
    const bundle = this.#trust.own();
    if (!this.#isKnown(bundle)) return undefined;
    if (this.#encoded?.bundle !== bundle) this.#encoded = { bundle, message: new Message(this.#encode(bundle)) };
    return this.#encoded.message;
  }
}

/** Feeds of X.509-SVIDs: one for each list of entries, however many callers have it. */
export class X509SvidFeeds {
  readonly #identities: X509Identities;
  readonly #trust: TrustStore;
  readonly #shared = new Map<string, SharedX509Feed>();

  constructor(identities: X509Identities, trust: TrustStore) {
    this.#identities = identities;
    this.#trust = trust;
  }

  open(entries: readonly Entry[], onChange: () => void): Feed {
    const key = feedKey(entries);
    const shared = this.#shared.get(key) ?? new SharedX509Feed(entries, this.#identities, this.#trust);
    this.#shared.set(key, shared);
    shared.readers.add(onChange);
    return {
      latest: () => shared.latest(),
      close: () => {
        shared.readers.delete(onChange);
        if (shared.readers.size > 0) return;
        shared.close();
        if (this.#shared.get(key) === shared) this.#shared.delete(key);
      },
    };
  }
}

class SharedX509Feed {
  readonly readers = new Set<() => void>();
  readonly #entries: readonly Entry[];
  readonly #leases: readonly X509Lease[];
  readonly #trust: TrustStore;
  readonly #stopTrust: () => void;
  #message: Message | undefined;
  #isStale = true;
  #isTelling = false;

  constructor(entries: readonly Entry[], identities: X509Identities, trust: TrustStore) {
    this.#entries = withDistinctHints(entries);
    this.#trust = trust;
    this.#stopTrust = trust.onChange(() => this.#changed());
    this.#leases = this.#entries.map((entry) => identities.acquire(entry, () => this.#changed()));
  }

  /** Nothing while any of the identities has no valid SVID: every message is the complete state (Workload API §5.1). */
  latest(): Message | undefined {
    const svids = this.#leases.map((lease) => lease.current()).filter((svid) => svid !== undefined);
    if (svids.length < this.#leases.length) return undefined;
    if (this.#message === undefined || this.#isStale) {
      const hinted = svids.map((svid, index) => ({ svid, hint: this.#entries[index]?.hint ?? '' }));
      this.#message = new Message(encodeX509Svids(hinted, this.#trust.own()));
      svidsIn.set(this.#message, svids.map(({ id, serial, notAfter }) => ({ spiffeId: id, serial, notAfter })));
      this.#isStale = false;
    }
    return this.#message;
  }

  close(): void {
    this.#stopTrust();
    for (const lease of this.#leases) lease.release();
  }

  /** Several changes in one turn of the event loop are one message. */
  #changed(): void {
    this.#isStale = true;
    if (this.#isTelling) return;
    this.#isTelling = true;
    queueMicrotask(() => {
      this.#isTelling = false;
      for (const reader of [...this.readers]) reader();
    });
  }
}

/** Of several entries with one hint the first counts (WA-23, WA-41); those without a hint all do. */
export function withDistinctHints(entries: readonly Entry[]): readonly Entry[] {
  if (entries.length < 2) return entries;
  const seen = new Set<string>();
  return entries.filter(({ hint }) => hint === '' || (!seen.has(hint) && seen.add(hint)));
}

/** Entries do not change, and most callers have one. */
const keys = new WeakMap<Entry, string>();

/** Everything of the entries that can be seen in a response. */
function feedKey(entries: readonly Entry[]): string {
  const [only] = entries;
  if (only === undefined || entries.length > 1) return keyOf(entries);
  let key = keys.get(only);
  if (key === undefined) keys.set(only, (key = keyOf(entries)));
  return key;
}

function keyOf(entries: readonly Entry[]): string {
  return JSON.stringify(entries.map((entry) => [entryKey(entry), entry.x509TtlMs ?? 0, entry.dnsNames, entry.hint]));
}
