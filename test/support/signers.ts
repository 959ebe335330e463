import { newEncodedKeyPair } from '../../src/authority/keys.ts';
import { SignetError } from '../../src/errors.ts';
import type { Clock } from '../../src/clock.ts';
import { EventBus } from '../../src/events.ts';
import type { Random } from '../../src/random.ts';
import type { Entry } from '../../src/spiffe/entry.ts';
import { parseSpiffeId } from '../../src/spiffe/id.ts';
import type { JwtRequest, JwtSigner, SignedJwt, SignedX509, X509Request, X509Signer } from '../../src/spiffe/signing.ts';

/** Always the middle: no jitter. */
export const evenRandom: Random = { bytes: (count) => Buffer.alloc(count, 7), fraction: () => 0.5 };

/** Counts what it signs and fails when told to. The chains are not certificates: who reads them is tested elsewhere. */
export class ScriptedSigner implements X509Signer, JwtSigner {
  readonly #clock: Clock;
  count = 0;
  isAway = false;
  end = Infinity;
  /** Holds every signature back until it resolves. */
  gate: Promise<void> = Promise.resolve();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  horizon(): number {
    return this.end;
  }

  sign(request: X509Request, signal: AbortSignal): Promise<SignedX509>;
  sign(request: JwtRequest, signal: AbortSignal): Promise<SignedJwt>;
  async sign(request: X509Request | JwtRequest, signal: AbortSignal): Promise<SignedX509 & SignedJwt> {
    signal.throwIfAborted();
    await this.gate;
    if (this.isAway) throw new SignetError('authority_unavailable', 'away');
    this.count += 1;
    const now = this.#clock.now();
    const notAfter = Math.min(now + request.ttlMs, this.end);
    const name = `${this.count}`;
    return { chain: [Buffer.from(name)], serial: name, notBefore: now - 60_000, notAfter, token: name, kid: 'k', issuedAt: now, expiresAt: notAfter };
  }
}

export function testEntry(path: string, more: Partial<Entry> = {}): Entry {
  const id = parseSpiffeId(`spiffe://example.org/${path}`);
  return { id, selectors: ['unix:uid:1'], x509TtlMs: undefined, jwtTtlMs: undefined, dnsNames: [], hint: '', priority: 0, ...more };
}

const fixed = await newEncodedKeyPair('ec-p256');

/** Always the same key. */
export const fixedKeys = () => Promise.resolve(fixed);

export const newEvents = (): EventBus => new EventBus();

/** Lets what is due in this turn of the event loop happen. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 5; i += 1) await new Promise((resolve) => setImmediate(resolve));
}
