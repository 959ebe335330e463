import { spawnSync } from 'node:child_process';
import { createPublicKey, X509Certificate } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { issuerFrom, type CertificateRequest, type Issuer } from '../../src/authority/certificate.ts';
import { CertificateReader } from '../../src/authority/certificate-reader.ts';
import { readElements } from '../../src/authority/der.ts';
import { newEncodedKeyPair, newKeyPair } from '../../src/authority/keys.ts';
import { LeafMint } from '../../src/authority/leaf-mint.ts';
import { leafProblems } from '../../src/authority/lint.ts';
import { systemRandom, type Random } from '../../src/random.ts';
import { parseSpiffeId, type SpiffeId } from '../../src/spiffe/id.ts';
import { KEY_TYPES, type KeyType } from '../../src/spiffe/key-type.ts';
import { certificatePem, issuerOf, testCa } from '../support/authorities.ts';
import { testIf } from '../support/kernel-conditions.ts';
import { temporaryDirectory } from '../support/kernel-processes.ts';
import { SeededRandom } from '../support/kernel-random.ts';
import { createLeaf } from '../support/library-certificates.ts';

const HOUR = 3_600_000;
const YEAR_2050 = Date.UTC(2050, 0, 1);
const [FROM, TO] = [Date.UTC(2049, 0, 1), Date.UTC(2051, 0, 1)];
const ID = parseSpiffeId('spiffe://example.org/a');
/** The same octets again and again, so that two builders draw one serial number. */
const repeating: Random = { ...systemRandom, bytes: (count) => Buffer.alloc(count, 0xa7) };

const issuers: Readonly<Record<KeyType, Issuer>> = {
  'ec-p256': await issuerOf(await newKeyPair('ec-p256'), FROM, TO),
  'ec-p384': await issuerOf(await newKeyPair('ec-p384'), FROM, TO),
  'rsa-2048': await issuerOf(await newKeyPair('rsa-2048'), FROM, TO),
};
const keys: Readonly<Record<KeyType, Buffer>> = {
  'ec-p256': (await newEncodedKeyPair('ec-p256')).publicKey,
  'ec-p384': (await newEncodedKeyPair('ec-p384')).publicKey,
  'rsa-2048': (await newEncodedKeyPair('rsa-2048')).publicKey,
};
const DATES = [
  { notBefore: YEAR_2050 - 2 * HOUR, notAfter: YEAR_2050 - 1_000 },
  { notBefore: YEAR_2050 - HOUR, notAfter: YEAR_2050 },
  { notBefore: YEAR_2050 - 1_000, notAfter: YEAR_2050 + HOUR },
  { notBefore: YEAR_2050, notAfter: YEAR_2050 + HOUR },
] as const;

function request(more: Partial<CertificateRequest> = {}): CertificateRequest {
  return { id: ID, publicKey: keys['ec-p256'], dnsNames: [], ...DATES[0], ...more };
}

/** A SPIFFE ID of so many octets, at least 23. */
function idOf(length: number, fill = 'a'): SpiffeId {
  return parseSpiffeId(`spiffe://example.org/${fill.repeat(length - 21)}`);
}

/** What is signed. */
function tbsOf(der: Buffer): Buffer {
  const [tbs] = readElements(der).flatMap(({ content }) => readElements(content));
  return tbs?.whole ?? Buffer.of();
}

async function libraryTbs(issuer: Issuer, asked: CertificateRequest): Promise<string> {
  return tbsOf((await createLeaf(issuer, asked, repeating)).der).toString('hex');
}

async function mintedTbs(mint: LeafMint, issuer: Issuer, asked: CertificateRequest): Promise<string> {
  return tbsOf((await mint.mint(issuer, asked)).der).toString('hex');
}

for (const issuerType of KEY_TYPES) {
  for (const keyType of KEY_TYPES) {
    test(`a leaf for ${keyType} under ${issuerType} is what the library builds, byte by byte, before, across and after 2050`, async (t) => {
      const issuer = issuers[issuerType];
      const mint = new LeafMint(repeating);
      // Twice: from a new image and from one that has held other dates.
      for (const dates of [...DATES, ...DATES]) {
        const asked = request({ publicKey: keys[keyType], dnsNames: ['web', 'db.example.org'], ...dates });
        t.is(await mintedTbs(mint, issuer, asked), await libraryTbs(issuer, asked));
      }
    });
  }
}

test('whatever the length of the ID, a leaf is what the library builds', async (t) => {
  const mint = new LeafMint(repeating);
  const issuer = issuers['ec-p256'];
  const lengths = new Set([22, 23, 2047, 2048]);
  // Where a length needs one octet more, of the ID itself, of what is around it, and of all extensions.
  for (const boundary of [127, 255]) for (let length = boundary - 130; length <= boundary + 3; length += 1) if (length > 22) lengths.add(length);
  for (const length of lengths) {
    const asked = request({ id: idOf(length) });
    t.is(await mintedTbs(mint, issuer, asked), await libraryTbs(issuer, asked), `${length} octets`);
  }
});

test('however many DNS names there are, a leaf is what the library builds', async (t) => {
  const mint = new LeafMint(repeating);
  const issuer = issuers['ec-p256'];
  const name = (index: number): string => `host-${String(index).padStart(5, '0')}`;
  for (const count of [0, 1, 2, 7, 8, 9, 15, 16, 17, 18, 19, 20, 100, 5000]) {
    const asked = request({ dnsNames: Array.from({ length: count }, (_, index) => name(index)) });
    t.is(await mintedTbs(mint, issuer, asked), await libraryTbs(issuer, asked), `${count} names`);
  }
});

test('where the names come to 65,535 octets and more, a leaf is what the library builds', async (t) => {
  const mint = new LeafMint(repeating);
  const issuer = issuers['ec-p256'];
  const many = Array.from({ length: 650 }, (_, index) => String(index).padStart(97, 'x'));
  const before = new Set<number>();
  // 650 names of 99 octets and an ID of 24 leave some 1,150 octets; the last name takes them up to each boundary.
  for (const last of [...range(600, 760), ...range(1_120, 1_170)]) {
    const asked = request({ dnsNames: [...many, 'y'.repeat(last)] });
    const minted = await mintedTbs(mint, issuer, asked);
    before.add(Math.floor(minted.length / 2 / 65_536));
    if (last % 10 === 0 || Math.abs(minted.length / 2 - 65_536) < 300) t.is(minted, await libraryTbs(issuer, asked), `${last} octets`);
    else t.is(readElements(Buffer.from(minted, 'hex')).length, 1);
  }
  t.deepEqual([...before].sort(), [0, 1]);
});

test('whatever was made before, a leaf is what the library builds: names, keys and dates in any order', async (t) => {
  const dice = new SeededRandom(t.log);
  const mint = new LeafMint(repeating);
  for (let round = 0; round < 150; round += 1) {
    const issuer = issuers[dice.pick(KEY_TYPES)];
    const notBefore = YEAR_2050 + (dice.below(7_200) - 3_600) * 1_000;
    const path = dice.text('abcXYZ019._-', 1 + dice.below(dice.pick([8, 300, 2_000]))).replace(/^\.+$/, 'x');
    const asked = request({
      id: parseSpiffeId(`spiffe://example.org/w/${path}`),
      publicKey: dice.below(2) === 0 ? keys[dice.pick(KEY_TYPES)] : (await newEncodedKeyPair('ec-p256')).publicKey,
      dnsNames: Array.from({ length: dice.below(5) }, () => `${dice.text('abc019', 1 + dice.below(40))}.example.org`),
      notBefore,
      notAfter: notBefore + (1 + dice.below(7_200)) * 1_000,
    });
    t.is(await mintedTbs(mint, issuer, asked), await libraryTbs(issuer, asked));
  }
});

test('every leaf, the first and those after it, passes the lint and is signed by its issuer', async (t) => {
  const mint = new LeafMint(systemRandom);
  const serials = new Set<string>();
  for (const issuer of Object.values(issuers)) {
    const above = new X509Certificate(issuer.certificate);
    // Signatures of ECDSA have different lengths.
    for (let count = 0; count < 60; count += 1) {
      const asked = request({ publicKey: (await newEncodedKeyPair('ec-p256')).publicKey, ...DATES[count % 4] });
      const { der, serial } = await mint.mint(issuer, asked);
      t.deepEqual(leafProblems(der, asked, issuer), []);
      const leaf = new X509Certificate(der);
      t.true(leaf.verify(above.publicKey) && leaf.raw.equals(der));
      t.true(leaf.publicKey.equals(createPublicKey({ key: asked.publicKey, format: 'der', type: 'spki' })));
      t.is(leaf.serialNumber.toLowerCase(), serial);
      serials.add(serial);
    }
  }
  t.is(serials.size, 180);
});

test('leaves that are signed in the pool at the same time do not mix', async (t) => {
  const mint = new LeafMint(systemRandom);
  const issuer = issuers['rsa-2048'];
  const asked = await Promise.all(Array.from({ length: 40 }, async (_, index) => request({ id: idOf(30 + index), publicKey: (await newEncodedKeyPair('ec-p256')).publicKey, ...DATES[index % 4] })));
  const leaves = await Promise.all(asked.map((one) => mint.mint(issuer, one)));
  for (const [index, { der }] of leaves.entries()) t.deepEqual(leafProblems(der, asked[index] ?? request(), issuer), []);
});

test('XS-44: names that were judged are not released with dates outside the issuer\'s', async (t) => {
  const mint = new LeafMint(systemRandom);
  const issuer = issuers['ec-p256'];
  await mint.mint(issuer, request());
  for (const dates of [{ notAfter: TO + 1_000 }, { notBefore: FROM - 1_000 }, { notBefore: YEAR_2050, notAfter: YEAR_2050 - 1_000 }]) {
    for (let time = 0; time < 2; time += 1) await t.throwsAsync(async () => mint.mint(issuer, request(dates)), { code: 'profile_violation', message: /XS-44/ });
  }
});

test('XS-03: a name that is none is refused each time, whatever was judged before it', async (t) => {
  const mint = new LeafMint(systemRandom);
  const issuer = issuers['ec-p256'];
  await mint.mint(issuer, request({ dnsNames: ['a', 'b'] }));
  for (const dnsNames of [['a\nb'], ['a, DNS:b'], ['a","b'], ['ä\u0142'], ['a\0']]) {
    for (let time = 0; time < 2; time += 1) await t.throwsAsync(async () => mint.mint(issuer, request({ dnsNames })), { code: 'profile_violation' }, JSON.stringify(dnsNames));
  }
  await t.notThrowsAsync(async () => mint.mint(issuer, request({ dnsNames: ['a', 'b'] })));
});

test('an ID that is none is refused', async (t) => {
  const mint = new LeafMint(systemRandom);
  for (const id of ['spiffe://example.org/\u0161', 'spiffe://example.org/a b,"']) {
    await t.throwsAsync(async () => mint.mint(issuers['ec-p256'], request({ id: id as SpiffeId })), { code: 'profile_violation' }, id);
  }
});

test('WA-29: what is no public key is refused, also when it has the length of one', async (t) => {
  const mint = new LeafMint(systemRandom);
  const issuer = issuers['ec-p256'];
  await mint.mint(issuer, request());
  for (const publicKey of [Buffer.alloc(91), Buffer.of(), Buffer.alloc(91, 0x30)]) await t.throwsAsync(async () => mint.mint(issuer, request({ publicKey })));
});

test('XS-44: under a CA that somebody else has made, its name and key identifier are copied octet by octet', async (t) => {
  const dates = { from: FROM, to: TO };
  for (const [name, more] of [['O=Ünïted, CN=CA 1', {}], ['C=DE, O=Somebody, CN=Middle', { keyType: 'rsa-2048' }]] as const) {
    const ca = await testCa({ name, ...dates, ...more });
    const issuer = issuerFrom(ca.certificate, ca);
    const asked = request();
    const { der } = await new LeafMint(repeating).mint(issuer, asked);
    const leaf = new CertificateReader(der);
    t.deepEqual(leaf.issuer, new CertificateReader(ca.certificate).subject);
    t.is(leaf.authorityKeyId?.toString('hex'), ca.keyId);
    t.is(tbsOf(der).toString('hex'), await libraryTbs(issuer, asked));
  }
});

const needsOpenssl = [spawnSync('openssl', ['version']).status === 0, 'needs openssl'] as const;

for (const issuerType of KEY_TYPES) {
  testIf(needsOpenssl, `openssl verify -x509_strict takes leaves under ${issuerType}, first and later ones`, async (t) => {
    const directory = temporaryDirectory(t);
    const path = (name: string, der: Buffer): string => {
      writeFileSync(join(directory, name), certificatePem(der));
      return join(directory, name);
    };
    const issuer = issuers[issuerType];
    const mint = new LeafMint(systemRandom);
    const root = path('root.pem', issuer.certificate);
    for (const keyType of [...KEY_TYPES, ...KEY_TYPES]) {
      for (const dates of DATES) {
        const { der } = await mint.mint(issuer, request({ publicKey: keys[keyType], dnsNames: ['web.example.org'], ...dates }));
        const time = String(dates.notBefore / 1_000);
        const result = spawnSync('openssl', ['verify', '-x509_strict', '-attime', time, '-purpose', 'sslserver', '-CAfile', root, path('leaf.pem', der)], { encoding: 'utf8' });
        t.is(result.status, 0, result.stdout + result.stderr);
      }
    }
  });
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, index) => from + index);
}
