import test from 'ava';
import { createCsr, createIntermediate, createRoot, issuerFrom } from '../../src/authority/certificate.ts';
import { oidElement, requestInfo, timeText } from '../../src/authority/certificate-form.ts';
import { derElement, readElements } from '../../src/authority/der.ts';
import { newKeyPair } from '../../src/authority/keys.ts';
import { systemRandom, type Random } from '../../src/random.ts';
import { parseSpiffeId, parseTrustDomain } from '../../src/spiffe/id.ts';
import { KEY_TYPES } from '../../src/spiffe/key-type.ts';
import { testCa } from '../support/authorities.ts';
import * as library from '../support/library-certificates.ts';

const HOUR = 3_600_000;
const NOW = Date.UTC(2030, 0, 1);
const trustDomain = parseTrustDomain('example.org');
const repeating: Random = { ...systemRandom, bytes: (count) => Buffer.alloc(count, 0x5c) };
const DATES = [
  { notBefore: NOW, notAfter: NOW + HOUR },
  { notBefore: NOW, notAfter: Date.UTC(2055, 6, 1) },
  { notBefore: Date.UTC(2050, 0, 1), notAfter: Date.UTC(2060, 0, 1) },
];

/** The first of two elements: what is signed. */
function signedPart(der: Buffer): string {
  return readElements(der).flatMap(({ content }) => readElements(content))[0]?.whole.toString('hex') ?? '';
}

for (const type of KEY_TYPES) {
  test(`roots, node CAs and requests of ${type} are what the library builds, byte by byte`, async (t) => {
    const keys = await newKeyPair(type);
    const id = parseSpiffeId('spiffe://example.org');
    for (const dates of DATES) {
      const root = await createRoot(keys, { id, ...dates }, repeating);
      t.is(signedPart(root), signedPart(await library.createRoot(keys, { id, ...dates }, repeating)));
      const parent = await testCa({ keyType: type, name: 'C=DE, O=Ünïted' });
      for (const issuer of [issuerFrom(root, keys), issuerFrom(parent.certificate, parent)]) {
        for (const nameConstraint of ['none', 'uri'] as const) {
          const request = { trustDomain, publicKey: keys.publicKey, nameConstraint, ...dates };
          t.is(signedPart(await createIntermediate(issuer, request, repeating)), signedPart(await library.createIntermediate(issuer, request, repeating)));
        }
      }
    }
    t.is(signedPart(await createCsr(keys, trustDomain, repeating)), signedPart(await library.createCsr(keys, trustDomain, repeating)));
  });
}

test('RFC 5280 §4.1.2.5: times have two digits of the year until 2049 and four from 2050 on', (t) => {
  t.is(timeText(Date.UTC(2049, 11, 31, 23, 59, 59)), '491231235959Z');
  t.is(timeText(Date.UTC(2050, 0, 1)), '20500101000000Z');
  t.is(timeText(Date.UTC(1999, 1, 3, 4, 5, 6)), '990203040506Z');
  t.is(timeText(Date.UTC(9999, 11, 31, 23, 59, 59)), '99991231235959Z');
  for (const ms of [NaN, Infinity, Date.UTC(10_000, 0, 1)]) t.throws(() => timeText(ms), { instanceOf: RangeError });
});

test('lengths are written in the shortest form, and read again', (t) => {
  for (const length of [0, 1, 127, 128, 255, 256, 65_535, 65_536, 100_000]) {
    const element = derElement(4, Buffer.alloc(length, 1));
    const [read, ...more] = readElements(element);
    t.is(read?.content.length, length);
    t.deepEqual(more, []);
    t.is(element.length - length, length < 128 ? 2 : length < 256 ? 3 : length < 65_536 ? 4 : 5);
  }
  t.throws(() => derElement(4, Buffer.alloc(0x100_0000)), { instanceOf: RangeError });
});

test('object identifiers are written as X.690 §8.19 has them', (t) => {
  t.is(oidElement('1.2.840.113549.1.1.11').toString('hex'), '06092a864886f70d01010b');
  t.is(oidElement('2.5.29.17').toString('hex'), '0603551d11');
  t.is(oidElement('2.999.3').toString('hex'), '0603883703');
  t.is(readElements(requestInfo(derElement(0x30), derElement(0x30), [])).length, 1);
});
