import { X509Certificate } from 'node:crypto';
import { SignetError, messageOf } from '../errors.ts';
import { parseSpiffeId, pathOf, type SpiffeId } from '../spiffe/id.ts';
import { readDer } from './der.ts';

/** More certificates than these in one chain are refused, as rust-spiffe does. */
const LONGEST_CHAIN = 16;

const SUBJECT_ALT_NAME = '551d11';
const KEY_USAGE = '551d0f';
const BASIC_CONSTRAINTS = '551d13';
/** The tag `[3]` under which a TBSCertificate has its extensions (RFC 5280 §4.1). */
const EXTENSIONS = 0xa3;
const SEQUENCE = 0x30;
const DNS_NAME = 0x82;
const URI = 0x86;

const DIGITAL_SIGNATURE = 0x80;
const KEY_CERT_SIGN = 0x04;
const CRL_SIGN = 0x02;

/** What the extensions of a certificate say that SPIFFE has rules about. */
export interface CertificateNames {
  readonly uris: readonly string[];
  readonly dnsNames: readonly string[];
  readonly isCa: boolean;
  /** First byte of the key usage bits (RFC 5280 §4.2.1.3), or undefined without that extension. */
  readonly keyUsage: number | undefined;
}

/**
 * Splits concatenated DER into certificates, each of which must parse.
 *
 * @throws SignetError `invalid_svid` naming `what`.
 */
export function parseCertificates(der: Buffer, what: string): Buffer[] {
  return naming(what, () => readDer(der).map((element) => new X509Certificate(element.bytes).raw));
}

/**
 * Splits and checks the chain of an X.509-SVID: leaf first, then intermediates (X509-SVID §4, §5; Workload API §5.2.1).
 *
 * @throws SignetError `invalid_svid` naming the rule that is broken.
 */
export function parseChain(der: Buffer, expectedId: string): { id: SpiffeId; chain: Buffer[]; leaf: X509Certificate } {
  const what = `the certificate chain of ${expectedId}`;
  const chain = parseCertificates(der, what);
  const [first, ...intermediates] = chain;
  if (first === undefined) throw invalid(what, 'it is empty');
  if (chain.length > LONGEST_CHAIN) throw invalid(what, `it has ${chain.length} certificates, allowed are ${LONGEST_CHAIN}`);
  const id = naming(what, () => assertLeaf(first));
  if (id !== expectedId) throw invalid(what, `its leaf is for ${id}`);
  for (const intermediate of intermediates) naming(what, () => assertSigning(intermediate));
  return { id, chain, leaf: new X509Certificate(first) };
}

/**
 * Reads the names and usages of one certificate.
 *
 * @throws SignetError `invalid_svid` when the DER is no certificate or names an extension twice.
 */
export function readNames(certificate: Buffer): CertificateNames {
  const extensions = readExtensions(certificate);
  const names = readDer(readDer(extensions.get(SUBJECT_ALT_NAME) ?? EMPTY_SEQUENCE)[0]?.content ?? Buffer.alloc(0));
  const constraint = readDer(readDer(extensions.get(BASIC_CONSTRAINTS) ?? EMPTY_SEQUENCE)[0]?.content ?? Buffer.alloc(0))[0];
  const usage = extensions.get(KEY_USAGE);
  return {
    uris: names.filter((name) => name.tag === URI).map((name) => name.content.toString('latin1')),
    dnsNames: names.filter((name) => name.tag === DNS_NAME).map((name) => name.content.toString('latin1')),
    isCa: constraint?.tag === 0x01 && constraint.content[0] !== 0,
    // The first byte of a BIT STRING counts its unused bits.
    keyUsage: usage === undefined ? undefined : (readDer(usage)[0]?.content[1] ?? 0),
  };
}

const EMPTY_SEQUENCE = Buffer.from([SEQUENCE, 0]);

function assertLeaf(certificate: Buffer): SpiffeId {
  const names = readNames(certificate);
  const [uri, ...others] = names.uris;
  if (uri === undefined || others.length > 0) throw broken(`a leaf has exactly one URI SAN, this one ${names.uris.length}`);
  const id = parseSpiffeId(uri);
  if (pathOf(id) === '') throw broken(`the ID of a leaf has a path, ${id} has none`);
  if (names.isCa) throw broken('the leaf is a CA certificate');
  if (names.keyUsage === undefined) throw broken('the leaf has no key usage');
  if ((names.keyUsage & DIGITAL_SIGNATURE) === 0) throw broken('the leaf lacks the key usage digitalSignature');
  if ((names.keyUsage & (KEY_CERT_SIGN | CRL_SIGN)) !== 0) throw broken('the leaf has the key usage keyCertSign or cRLSign');
  return id;
}

function assertSigning(certificate: Buffer): void {
  const names = readNames(certificate);
  if (!names.isCa) throw broken('an intermediate is no CA certificate');
  if (((names.keyUsage ?? 0) & KEY_CERT_SIGN) === 0) throw broken('an intermediate lacks the key usage keyCertSign');
}

/** Maps each extension's OID (its content in hex) to the DER inside its OCTET STRING. */
function readExtensions(certificate: Buffer): Map<string, Buffer> {
  const [outer] = readDer(certificate);
  const [tbs] = readDer(outer?.content ?? Buffer.alloc(0));
  const field = readDer(tbs?.content ?? Buffer.alloc(0)).find((element) => element.tag === EXTENSIONS);
  const list = field === undefined ? [] : readDer(readDer(field.content)[0]?.content ?? Buffer.alloc(0));
  const extensions = new Map<string, Buffer>();
  for (const extension of list) {
    const parts = readDer(extension.content);
    const oid = parts[0]?.content.toString('hex') ?? '';
    if (extensions.has(oid)) throw broken('a certificate has the same extension twice');
    extensions.set(oid, parts.at(-1)?.content ?? Buffer.alloc(0));
  }
  return extensions;
}

function naming<T>(what: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw invalid(what, messageOf(error));
  }
}

function invalid(what: string, rule: string): SignetError {
  return new SignetError('invalid_svid', `${what} is not valid: ${rule}`);
}

function broken(rule: string): SignetError {
  return new SignetError('invalid_svid', rule);
}
