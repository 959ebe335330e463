import { X509Certificate } from 'node:crypto';
import type { ExecutionContext } from 'ava';
import { createIntermediate, issuerFrom } from '../../src/authority/certificate.ts';
import type { IntermediateAnswer, IntermediateAsked, IntermediateSource } from '../../src/authority/intermediate-source.ts';
import { NodeAuthority, type NodeAuthorityOptions } from '../../src/authority/node-authority.ts';
import { NodeX509Signer, type IssuerSource } from '../../src/authority/x509-signer.ts';
import { EventBus, type Events } from '../../src/events.ts';
import { systemRandom, type Random } from '../../src/random.ts';
import type { SignedX509 } from '../../src/spiffe/signing.ts';
import { parseSpiffeId, parseTrustDomain } from '../../src/spiffe/id.ts';
import { fixedKeys } from './signers.ts';
import { testCa, type TestCa } from './authorities.ts';
import type { FakeClock } from './fake-clock.ts';

export const trustDomain = parseTrustDomain('example.org');

/** A CA above the node that does what a test tells it. */
export class ScriptedSource implements IntermediateSource {
  readonly overlapMs = 180_000;
  readonly #clock: FakeClock;
  readonly #listeners = new Set<() => void>();
  ca: TestCa;
  /** What lies above `ca`: from it to the root. */
  above: readonly TestCa[];
  moreRoots: readonly TestCa[] = [];
  count = 0;
  failure: Error | undefined;
  /** Holds every answer back until it resolves. */
  gate: Promise<void> = Promise.resolve();
  /** Changes each answer. */
  tamper: (answer: IntermediateAnswer) => IntermediateAnswer = (answer) => answer;

  constructor(clock: FakeClock, ca: TestCa, above: readonly TestCa[] = []) {
    this.#clock = clock;
    this.ca = ca;
    this.above = above;
  }

  get root(): TestCa {
    return this.above.at(-1) ?? this.ca;
  }

  roots(): readonly Buffer[] {
    return [this.root, ...this.moreRoots].map(({ certificate }) => certificate);
  }

  issuer(): Buffer | undefined {
    return this.ca.certificate;
  }

  problem(): string | undefined {
    return undefined;
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  changed(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  async sign(asked: IntermediateAsked): Promise<IntermediateAnswer> {
    this.count += 1;
    await this.gate;
    if (this.failure !== undefined) throw this.failure;
    const now = this.#clock.now();
    const issuer = issuerFrom(this.ca.certificate, this.ca);
    const dates = { notBefore: now - 300_000, notAfter: Math.floor((now + asked.ttlMs) / 1000) * 1000 };
    const der = await createIntermediate(issuer, { ...asked, ...dates }, systemRandom);
    const chain = this.above.length === 0 ? [] : [this.ca, ...this.above.slice(0, -1)];
    return this.tamper({ chain: [der, ...chain.map(({ certificate }) => certificate)], roots: this.roots() });
  }
}

export interface Opened {
  readonly authority: NodeAuthority;
  readonly steps: string[];
  readonly failures: Events['authorityFailed'][];
  /** A leaf of the next minutes, signed as the agent does. */
  leaf(): Promise<SignedX509>;
}

export interface OpenOptions extends Partial<NodeAuthorityOptions> {
  readonly privateDir: string;
  readonly random?: Random;
}

export async function openNodeAuthority(t: ExecutionContext, clock: FakeClock, upstream: IntermediateSource, options: OpenOptions): Promise<Opened> {
  const events = new EventBus();
  const steps: string[] = [];
  const failures: Events['authorityFailed'][] = [];
  events.on('authorityRotated', ({ kind, step }) => void steps.push(`${kind} ${step}`));
  events.on('authorityFailed', (fact) => void failures.push(fact));
  const { random = systemRandom, ...rest } = options;
  const authority = await NodeAuthority.open({ trustDomain, ttlMs: 86_400_000, nameConstraint: 'none', ...rest }, { clock, random, events, upstream });
  t.teardown(() => authority.close());
  const id = parseSpiffeId('spiffe://example.org/a');
  const leaf = async (): Promise<SignedX509> => {
    const { publicKey } = await fixedKeys();
    await authority.ready();
    // Read together: another node CA may sign by the time the leaf is made.
    const [issuer, intermediates] = [authority.issuer(), authority.intermediates()];
    const source: IssuerSource = { ready: () => Promise.resolve(), issuer: () => issuer, intermediates: () => intermediates };
    const signer = new NodeX509Signer(source, trustDomain, clock, systemRandom);
    return signer.sign({ id, publicKey, ttlMs: 3_600_000, dnsNames: [], csr: () => Promise.reject(new Error('nobody asks for it')) }, new AbortController().signal);
  };
  return { authority, steps, failures, leaf };
}

/** A root with a CA below it, of which the agent gets the key. */
export async function twoTiers(name: string): Promise<{ root: TestCa; ca: TestCa }> {
  const root = await testCa({ name: `CN=${name} root` });
  return { root, ca: await testCa({ name: `CN=${name}`, parent: root }) };
}

/** Whether a receiver with these roots accepts the chain at `now`: signatures and dates, by code that is not ours. */
export function isAccepted(chain: readonly Buffer[], roots: readonly Buffer[], now: number): boolean {
  const path = chain.map(certificateOf);
  const isInTime = (one: X509Certificate): boolean => one.validFromDate.getTime() <= now && now <= one.validToDate.getTime();
  const isLinked = path.every((one, index) => {
    const above = path[index + 1];
    return above === undefined || isSignedBy(one, above);
  });
  const last = path.at(-1);
  return last !== undefined && isLinked && path.every(isInTime) && roots.map(certificateOf).some((root) => isInTime(root) && isSignedBy(last, root));
}

const certificates = new WeakMap<Buffer, X509Certificate>();
const signed = new Map<string, boolean>();

function certificateOf(der: Buffer): X509Certificate {
  const known = certificates.get(der) ?? new X509Certificate(der);
  certificates.set(der, known);
  return known;
}

/** Looked at once for each pair: the same few are asked for thousands of times. */
function isSignedBy(child: X509Certificate, parent: X509Certificate): boolean {
  const pair = `${child.fingerprint256} ${parent.fingerprint256}`;
  const known = signed.get(pair) ?? (child.checkIssued(parent) && child.verify(parent.publicKey));
  signed.set(pair, known);
  return known;
}
