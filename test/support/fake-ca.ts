import 'reflect-metadata';
import { createPublicKey, type KeyObject } from 'node:crypto';
import * as x509 from '@peculiar/x509';
import type { Issuer } from '../../src/authority/certificate.ts';
import { permittingUriHost } from '../../src/authority/name-constraints.ts';
import { systemRandom } from '../../src/random.ts';
import { parseSpiffeId } from '../../src/spiffe/id.ts';
import { certificatePem, testCa, type TestCa, type TestCaOptions } from './authorities.ts';
import { createLeaf, namesOf, type LibraryLeafRequest } from './library-certificates.ts';
import type { Answer, Origin, Request } from './fault-proxy.ts';

const HOUR = 3_600_000;
const DEFAULT = 'default';

/** What a CA signs, and what it says stands above that. */
export interface Signed {
  readonly certificate: Buffer;
  readonly above: readonly Buffer[];
}

export interface Asked {
  readonly publicKey: KeyObject;
  /** The body of the request. */
  readonly body: Readonly<Record<string, unknown>>;
}

export type Sign = (asked: Asked) => Promise<Signed>;

/** The part of Vault's PKI engine that an agent uses, for certificates that no real one would sign. */
export class FakeCa {
  readonly root: TestCa;
  /** Signs, and stands under the root. */
  readonly ca: TestCa;
  /** Further issuers of the mount. */
  more: readonly TestCa[] = [];
  /** Signs in place of the CA. */
  instead: Sign | undefined;

  private constructor(root: TestCa, ca: TestCa) {
    this.root = root;
    this.ca = ca;
  }

  static async create(): Promise<FakeCa> {
    const root = await caNow();
    return new FakeCa(root, await caNow({ parent: root }));
  }

  readonly origin: Origin = async (request) => {
    const [, , mount, kind, ...rest] = new URL(request.target, 'https://ca').pathname.split('/');
    if (mount !== 'pki') return found({}, { auth: { client_token: 's.token', lease_duration: 3600, renewable: true } });
    if (kind === 'issuers') return found({ keys: this.#issuers().map((_, index) => `${index}`) });
    const [id = '', what = ''] = rest;
    if (what === 'json') return this.#describe(id === DEFAULT ? 0 : Number(id));
    return this.#sign(request, what === 'sign-intermediate' ? nodeCa : leaf);
  };

  #issuers(): readonly TestCa[] {
    return [this.ca, this.root, ...this.more];
  }

  #describe(index: number): Answer {
    const issuer = this.#issuers()[index];
    return issuer === undefined ? { status: 404, body: '{"errors":[]}' } : found({ issuer_id: `${index}`, certificate: certificatePem(issuer.certificate), ca_chain: [] });
  }

  async #sign(request: Request, usual: (ca: FakeCa, asked: Asked) => Promise<Signed>): Promise<Answer> {
    const body = JSON.parse(request.body) as Asked['body'];
    const csr = new x509.Pkcs10CertificateRequest(String(body['csr']));
    const asked = { body, publicKey: createPublicKey({ key: Buffer.from(csr.publicKey.rawData), format: 'der', type: 'spki' }) };
    const { certificate, above } = await (this.instead?.(asked) ?? usual(this, asked));
    return found({ certificate: certificatePem(certificate), issuing_ca: above[0] === undefined ? '' : certificatePem(above[0]), ca_chain: above.map((der) => certificatePem(der)) });
  }
}

/** A CA of the present time. */
export function caNow(options: TestCaOptions = {}): Promise<TestCa> {
  const now = Date.now();
  return testCa({ from: now - HOUR, to: now + 24 * HOUR, ...options });
}

/** A node CA as it should be, but for `changes`. `above`: from its issuer up; default the fake's CA and root. */
export async function nodeCa({ ca, root }: FakeCa, { publicKey, body }: Asked, changes: TestCaOptions = {}, above: readonly TestCa[] = [ca, root]): Promise<Signed> {
  const parent = changes.parent ?? above[0] ?? ca;
  const now = Date.now();
  const constraint = body['permitted_uri_domains'] === undefined ? [] : [new x509.Extension('2.5.29.30', true, permittingUriHost(String(body['permitted_uri_domains'])))];
  // Only the public half is looked at.
  const keys = { publicKey, privateKey: ca.privateKey };
  const proper = { parent, keys, pathLength: 0, uris: ['spiffe://example.org'], more: constraint, from: now - 60_000, to: now + parseInt(String(body['ttl'])) * 1_000 };
  const { certificate } = await testCa({ ...proper, ...changes });
  return { certificate, above: above.map((one) => one.certificate) };
}

/** An X.509-SVID of `/a` as it should be, but for `changes`. `above`: as for a node CA. */
export async function leaf({ ca, root }: FakeCa, { publicKey, body }: Asked, changes: Partial<LibraryLeafRequest> = {}, above: readonly TestCa[] = [ca, root], signer = above[0] ?? ca): Promise<Signed> {
  const now = Math.floor(Date.now() / 1_000) * 1_000;
  const proper = { id: parseSpiffeId('spiffe://example.org/a'), publicKey, dnsNames: [], notBefore: now - 60_000, notAfter: now + parseInt(String(body['ttl'])) * 1_000 };
  const { der } = await createLeaf(issuerOf(signer), { ...proper, ...changes }, systemRandom);
  return { certificate: der, above: above.map((one) => one.certificate) };
}

/** Without the judgement that the agent's own issuers pass. */
function issuerOf(ca: TestCa): Issuer {
  const subjectName = namesOf(ca.certificate).subject;
  return { ...ca, subject: String(ca.name), subjectName, subjectKeyId: Buffer.from(ca.keyId, 'hex'), notBefore: 0, notAfter: Infinity };
}

function found(data: object, more: object = {}): Answer {
  return { status: 200, body: JSON.stringify({ data, ...more }) };
}
