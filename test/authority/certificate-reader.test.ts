import 'reflect-metadata';
import { createPublicKey, X509Certificate } from 'node:crypto';
import * as x509 from '@peculiar/x509';
import test, { type ExecutionContext } from 'ava';
import { createRoot, spkiOf } from '../../src/authority/certificate.ts';
import { CertificateReader } from '../../src/authority/certificate-reader.ts';
import { derElement } from '../../src/authority/der.ts';
import { newKeyPair } from '../../src/authority/keys.ts';
import { systemRandom } from '../../src/random.ts';
import { parseSpiffeId } from '../../src/spiffe/id.ts';
import { issuerOf, testCa, type TestCaOptions } from '../support/authorities.ts';
import { SeededRandom } from '../support/kernel-random.ts';
import { createLeaf } from '../support/library-certificates.ts';

const NOW = Date.UTC(2030, 0, 1);
const HOUR = 3_600_000;
const NAME_TYPES: Readonly<Record<number, string>> = { 0x81: 'email', 0x82: 'dns', 0x86: 'url', 0x87: 'ip', 0x88: 'id', 0xa0: 'other', 0xa4: 'dn' };

/** The bits of a key usage as the library numbers them are those of RFC 5280. */
function asLibraryReads(der: Buffer) {
  const read = new x509.X509Certificate(der);
  const constraints = read.getExtension(x509.BasicConstraintsExtension);
  const usage = read.getExtension(x509.KeyUsagesExtension);
  const texts = (read.getExtension(x509.SubjectAlternativeNameExtension)?.names.items ?? []).filter(({ type }) => type === 'url' || type === 'dns' || type === 'email');
  return {
    constraints: constraints === null ? undefined : { isCritical: constraints.critical, isCa: constraints.ca, pathLength: constraints.pathLength },
    usage: usage === null ? undefined : { isCritical: usage.critical, bits: Number(usage.usages) },
    extended: usesOf(read.getExtension(x509.ExtendedKeyUsageExtension)),
    names: texts.map(({ type, value }) => [type, value]),
    subjectKeyId: read.getExtension(x509.SubjectKeyIdentifierExtension)?.keyId,
    authorityKeyId: read.getExtension(x509.AuthorityKeyIdentifierExtension)?.keyId,
    extensions: Array.from(read.extensions, ({ type, critical, value }) => [type, critical, Buffer.from(value).toString('hex')]),
    publicKey: Buffer.from(read.publicKey.rawData).toString('hex'),
    subject: Buffer.from(read.subjectName.toArrayBuffer()).toString('hex'),
    issuer: Buffer.from(read.issuerName.toArrayBuffer()).toString('hex'),
  };
}

function usesOf(extension: x509.ExtendedKeyUsageExtension | null): string[] | undefined {
  return extension === null ? undefined : Array.from(extension.usages, String);
}

function asWeRead(der: Buffer): ReturnType<typeof asLibraryReads> {
  const read = new CertificateReader(der);
  const names = read.names.map(({ tag, text }): [string, string] => [NAME_TYPES[tag] ?? String(tag), text]);
  return {
    constraints: read.basicConstraints,
    usage: read.keyUsage,
    extended: read.extendedKeyUsage === undefined ? undefined : [...read.extendedKeyUsage],
    names: names.filter(([type]) => type === 'url' || type === 'dns' || type === 'email') as ReturnType<typeof asLibraryReads>['names'],
    subjectKeyId: read.subjectKeyId?.toString('hex'),
    authorityKeyId: read.authorityKeyId?.toString('hex'),
    extensions: read.extensions.map(({ oid, isCritical, value }) => [oid, isCritical, value.toString('hex')]),
    publicKey: read.publicKey.toString('hex'),
    subject: read.subject.toString('hex'),
    issuer: read.issuer.toString('hex'),
  };
}

function agree(t: ExecutionContext, der: Buffer, message?: string): void {
  t.deepEqual(asWeRead(der), asLibraryReads(der), message);
}

const rsa = await newKeyPair('rsa-2048');
const p384 = await newKeyPair('ec-p384');
const { KeyUsageFlags, ExtendedKeyUsage } = x509;
const VARIANTS: readonly TestCaOptions[] = [
  {},
  { ca: false },
  { pathLength: 0 },
  { pathLength: 127 },
  { pathLength: 128 },
  { pathLength: 70_000 },
  { uses: KeyUsageFlags.digitalSignature },
  { uses: KeyUsageFlags.decipherOnly | KeyUsageFlags.keyAgreement },
  { uses: 0x1ff },
  { isNameless: true },
  { keys: rsa },
  { keys: p384, hash: 'SHA-384' },
  { keys: rsa, hash: 'SHA-512' },
  { name: 'C=DE, ST=Bayern, O=Ünïted + OU=both, CN=日本' },
  { uris: ['spiffe://example.org', 'https://example.org/a?b=c'] },
  { from: Date.UTC(2049, 0, 1), to: Date.UTC(2060, 0, 1) },
  { more: [new x509.ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth, '2.5.29.37.0', '1.3.6.1.4.1.311.10.3.4', '2.999.1234567'], true)] },
  { more: [new x509.Extension('2.5.29.30', true, Buffer.from('3000', 'hex')), new x509.Extension('1.2.3.4', false, Buffer.of(5, 0))] },
  { more: [new x509.SubjectAlternativeNameExtension([{ type: 'dns', value: 'a.example' }, { type: 'email', value: 'a@example' }, { type: 'ip', value: '10.0.0.1' }, { type: 'dn', value: 'CN=a' }, { type: 'url', value: 'spiffe://x/y' }], true)] },
];

for (const [index, options] of VARIANTS.entries()) {
  test(`the library and we read the same: ${JSON.stringify({ ...options, keys: undefined, more: options.more?.map(({ type }) => type) })} (${index})`, async (t) => {
    agree(t, (await testCa(options)).certificate);
  });
}

test('what is signed here is read the same by the library', async (t) => {
  const keys = await newKeyPair('ec-p256');
  const dates = { notBefore: NOW - HOUR, notAfter: NOW + HOUR };
  agree(t, await createRoot(keys, { id: parseSpiffeId('spiffe://example.org'), ...dates }, systemRandom));
  const issuer = await issuerOf(keys, NOW - HOUR, NOW + HOUR);
  const asked = { id: parseSpiffeId('spiffe://example.org/a'), publicKey: spkiOf(rsa.publicKey), dnsNames: ['a', 'b'], ...dates };
  agree(t, (await createLeaf(issuer, asked, systemRandom)).der);
});

test('a signature with SHA-1 or MD5 is known as weak, and RSASSA-PSS with its default hash too', async (t) => {
  const swap = (der: Buffer, from: string, to: string): Buffer => {
    const hex = der.toString('hex');
    return Buffer.from(hex.replaceAll(from, to), 'hex');
  };
  const SHA256_RSA = '06092a864886f70d01010b';
  const { certificate } = await testCa({ keys: rsa });
  t.is(new CertificateReader(certificate).weakHash, undefined);
  t.is(new CertificateReader((await testCa({ keys: rsa, hash: 'SHA-1' })).certificate).weakHash, 'SHA-1');
  t.is(new CertificateReader(swap(certificate, SHA256_RSA, '06092a864886f70d010104')).weakHash, 'MD5');
  t.is(new CertificateReader(swap(certificate, SHA256_RSA, '06092a864886f70d01010a')).weakHash, 'SHA-1');
});

test('RFC 5280 §4.2: an extension that is there twice is refused', async (t) => {
  const twice = new x509.Extension('1.2.3.4', false, Buffer.of(5, 0));
  const { certificate } = await testCa({ more: [twice, twice] });
  t.throws(() => new CertificateReader(certificate), { instanceOf: RangeError, message: /twice/ });
});

test('RFC 5280 §4.2.1.3: a key usage of more bits than there are is refused, whatever they would wrap around to', async (t) => {
  const value = derElement(3, Buffer.of(0, 0x80, 0, 0, 0, 0x04));
  const keys = await newKeyPair('ec-p256');
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: '42', subject: 'O=a', issuer: 'O=a', notBefore: new Date(NOW), notAfter: new Date(NOW + HOUR),
    publicKey: new x509.PublicKey(spkiOf(keys.publicKey)),
    signingKey: keys.privateKey.toCryptoKey({ name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign']),
    signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
    extensions: [new x509.Extension('2.5.29.15', true, value)],
  });
  t.throws(() => new CertificateReader(Buffer.from(certificate.rawData)), { instanceOf: RangeError });
});

test('bytes that are no certificate are refused with a RangeError, and what OpenSSL and the library take too is read the same', async (t) => {
  const dice = new SeededRandom(t.log);
  const samples = [(await testCa(VARIANTS[14])).certificate, (await testCa(VARIANTS[18])).certificate, (await testCa({ pathLength: 1, keys: rsa })).certificate];
  let [same, refused] = [0, 0];
  for (let round = 0; round < 4_000; round += 1) {
    const bytes = Buffer.from(dice.pick(samples as [Buffer, ...Buffer[]]));
    for (let count = dice.below(3); count >= 0; count -= 1) bytes[dice.below(bytes.length)] = dice.below(256);
    const der = dice.below(10) === 0 ? bytes.subarray(0, dice.below(bytes.length)) : bytes;
    let ours: ReturnType<typeof asWeRead> | undefined;
    try {
      ours = asWeRead(der);
    } catch (error) {
      t.true(error instanceof RangeError, String(error));
      refused += 1;
      continue;
    }
    const theirs = tried(() => (new X509Certificate(der), asLibraryReads(der)));
    if (theirs === undefined) continue;
    // What decides is the same; texts and object identifiers of no meaning may be read in another way.
    t.deepEqual([ours.constraints?.isCa, ours.usage?.bits, ours.subjectKeyId], [theirs.constraints?.isCa, theirs.usage?.bits, theirs.subjectKeyId]);
    // The library writes a damaged key anew, so that OpenSSL has to say whether it is the same one.
    const key = tried(() => new X509Certificate(der).publicKey);
    if (key !== undefined) t.true(createPublicKey({ key: Buffer.from(ours.publicKey, 'hex'), format: 'der', type: 'spki' }).equals(key));
    same += 1;
  }
  t.true(same > 500 && refused > 100, `${same} read the same, ${refused} refused`);
});

function tried<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
