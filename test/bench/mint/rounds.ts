/**
 * `node rounds.ts KIND SECONDS`: makes things of one kind for so long and prints how many a CPU second. A process for each round, so that
 * none runs on a heap that another has filled.
 */
import { createECDH, hash, sign } from 'node:crypto';
import { createRoot, issuerFrom, wholeSecond, type Issuer } from '../../../src/authority/certificate.ts';
import { NodeJwtSigner } from '../../../src/authority/jwt-signer.ts';
import { jwtAuthority, newEncodedKeyPair, newKeyPair } from '../../../src/authority/keys.ts';
import { NodeX509Signer } from '../../../src/authority/x509-signer.ts';
import { SystemClock } from '../../../src/clock.ts';
import { systemRandom } from '../../../src/random.ts';
import { parseSpiffeId, parseTrustDomain } from '../../../src/spiffe/id.ts';

export const KINDS = ['leaf', 'new-names', 'raw', 'library', 'jwt', 'raw-jwt'] as const;
export type Kind = (typeof KINDS)[number];

const HOUR = 3_600_000;
const TRUST_DOMAIN = parseTrustDomain('example.org');
const ID = parseSpiffeId('spiffe://example.org/ns/default/sa/web');
const { signal } = new AbortController();

type Step = () => unknown;

async function newIssuer(): Promise<Issuer> {
  const keys = await newKeyPair('ec-p256');
  const now = wholeSecond(Date.now());
  const certificate = await createRoot(keys, { id: parseSpiffeId('spiffe://example.org'), notBefore: now - HOUR, notAfter: now + 24 * HOUR }, systemRandom);
  return issuerFrom(certificate, keys);
}

const MAKERS: Readonly<Record<Kind, () => Promise<Step>>> = {
  /** What the agent does for a renewal, between the identity and the wire. */
  leaf: () => leaves(() => ID),
  'new-names': () => {
    let count = 0;
    return leaves(() => parseSpiffeId(`${ID}/${(count += 1)}`));
  },
  raw: async () => {
    const { privateKey } = await newKeyPair('ec-p256');
    const ecdh = createECDH('prime256v1');
    const tbs = systemRandom.bytes(420);
    return () => {
      const point = ecdh.generateKeys();
      ecdh.getPrivateKey();
      hash('sha256', point, 'buffer');
      sign('sha256', tbs, privateKey);
    };
  },
  library: async () => {
    const { createLeaf } = await import('../../support/library-certificates.ts');
    const issuer = await newIssuer();
    return async () => {
      const { publicKey } = await newKeyPair('ec-p256');
      const now = wholeSecond(Date.now());
      await createLeaf(issuer, { id: ID, publicKey, dnsNames: [], notBefore: now, notAfter: now + HOUR }, systemRandom);
    };
  },
  jwt: async () => {
    const keys = await newKeyPair('ec-p256');
    const key = { ...keys, kid: jwtAuthority(keys.publicKey).kid, notAfter: Date.now() + 24 * HOUR };
    const signer = new NodeJwtSigner({ ready: () => Promise.resolve(), jwtKey: () => key }, TRUST_DOMAIN, undefined, new SystemClock());
    return () => signer.sign({ id: ID, audience: ['spiffe://example.org/ns/default/sa/api'], ttlMs: 300_000 }, signal);
  },
  'raw-jwt': async () => {
    const { privateKey } = await newKeyPair('ec-p256');
    const data = systemRandom.bytes(320);
    return () => sign('sha256', data, { key: privateKey, dsaEncoding: 'ieee-p1363' });
  },
};

async function leaves(nextId: () => typeof ID): Promise<Step> {
  const issuer = await newIssuer();
  const source = { ready: () => Promise.resolve(), issuer: () => issuer, intermediates: () => [] };
  const signer = new NodeX509Signer(source, TRUST_DOMAIN, new SystemClock(), systemRandom);
  const csr = (): Promise<Buffer> => Promise.reject(new Error('nobody asks for it'));
  return async () => {
    const { publicKey } = await newEncodedKeyPair('ec-p256');
    await signer.sign({ id: nextId(), publicKey, ttlMs: HOUR, dnsNames: [], csr }, signal);
  };
}

/** For each second of CPU that the process took, its helper threads included: who else uses the machine counts less then. */
async function perSecond(step: Step, seconds: number): Promise<number> {
  // What is compiled while it runs is compiled by then.
  for (const end = performance.now() + 300; performance.now() < end; ) await step();
  let count = 0;
  const before = process.cpuUsage();
  for (const end = performance.now() + seconds * 1000; performance.now() < end; count += 20) {
    for (let batch = 0; batch < 20; batch += 1) await step();
  }
  const { user, system } = process.cpuUsage(before);
  return (count * 1_000_000) / (user + system);
}

if (import.meta.main) {
  const [kind, seconds] = process.argv.slice(2);
  const known = KINDS.find((one) => one === kind);
  if (known === undefined) throw new Error(`${kind} is none of ${KINDS.join(', ')}`);
  process.stdout.write(`${Math.round(await perSecond(await MAKERS[known](), Number(seconds)))}\n`);
  // The thread pool may still be at work for nobody.
  process.exit();
}
