import 'reflect-metadata';
import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { generateKeyPairSync } from 'node:crypto';
import test, { type ExecutionContext } from 'ava';
import * as x509 from '@peculiar/x509';
import { derElement } from '../../src/authority/der.ts';
import { permittingUriHost } from '../../src/authority/name-constraints.ts';
import { newKeyPair } from '../../src/authority/keys.ts';
import { EventBus, type Events } from '../../src/events.ts';
import { createLog } from '../../src/log.ts';
import { parseTrustDomain } from '../../src/spiffe/id.ts';
import { FilesUpstream, type FilesOptions } from '../../src/upstream/files.ts';
import { namesOf } from '../support/library-certificates.ts';
import { caFiles, caTools, certificatePem, keyPem, MountedSecret, testCa, type TestCa } from '../support/authorities.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { needsRoot, testIf } from '../support/kernel-conditions.ts';
import { temporaryDirectory } from '../support/kernel-processes.ts';

const DAY = 86_400_000;
const POLL = 5_000;
const trustDomain = parseTrustDomain('example.org');

interface SetUp {
  readonly directory: string;
  readonly options: FilesOptions;
  readonly clock: FakeClock;
  readonly upstream: FilesUpstream;
  readonly failures: Events['upstreamFailed'][];
  readonly answers: Events['upstreamAnswered'][];
  readonly warnings: string[];
  /** Lets one poll interval pass and waits for the look in it. */
  look(): Promise<void>;
}

function write(directory: string, files: Readonly<Record<string, string>>): FilesOptions {
  for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text, { mode: 0o600 });
  return optionsFor(directory);
}

function optionsFor(directory: string): FilesOptions {
  return { trustDomain, files: { certificate: join(directory, 'tls.crt'), key: join(directory, 'tls.key'), roots: [join(directory, 'ca.crt')] } };
}

async function open(t: ExecutionContext, options: FilesOptions, directory: string): Promise<SetUp> {
  const clock = new FakeClock();
  const events = new EventBus();
  const failures: Events['upstreamFailed'][] = [];
  const answers: Events['upstreamAnswered'][] = [];
  const warnings: string[] = [];
  events.on('upstreamFailed', (fact) => void failures.push(fact));
  events.on('upstreamAnswered', (fact) => void answers.push(fact));
  const log = createLog('warn', { write: (line: string) => void warnings.push(String(JSON.parse(line).reason)) });
  const upstream = await FilesUpstream.open(options, { clock, events, log, ca: caTools });
  t.teardown(() => upstream.close());
  const look = async (): Promise<void> => {
    clock.advance(POLL);
    await upstream.look();
  };
  return { directory, options, clock, upstream, failures, answers, warnings, look };
}

async function openWith(t: ExecutionContext, files: Readonly<Record<string, string>>): Promise<SetUp> {
  const directory = temporaryDirectory(t);
  return open(t, write(directory, files), directory);
}

const request = async () => {
  const { publicKey } = await newKeyPair('ec-p256');
  return { trustDomain, publicKey, ttlMs: DAY, nameConstraint: 'none' as const, csr: () => Promise.reject(new Error('not needed')) };
};

const sign = async ({ upstream }: SetUp) => upstream.sign(await request(), new AbortController().signal);

const check = async (directory: string): Promise<string> => {
  const tools = { clock: new FakeClock(), ca: caTools };
  return FilesUpstream.check(optionsFor(directory), tools).then(
    () => 'good',
    (error: Error) => error.message.replaceAll(directory, 'DIR'),
  );
};

/** The text with which the files are refused. */
async function refusal(t: ExecutionContext, files: Readonly<Record<string, string>>): Promise<string> {
  const directory = temporaryDirectory(t);
  write(directory, files);
  return check(directory);
}

const certificateText = (what: string, remedy: string): string => `the CA certificate DIR/tls.crt cannot be used: ${what}. What to do: ${remedy}.`;
const keyText = (what: string, remedy: string): string => `the CA's private key DIR/tls.key cannot be used: ${what}. What to do: ${remedy}.`;
const rootsText = (what: string, remedy: string): string => `the root certificates DIR/ca.crt cannot be used: ${what}. What to do: ${remedy}.`;

test('a root with its key signs node CAs, and is what is believed', async (t) => {
  const root = await testCa();
  const set = await openWith(t, caFiles(root));
  t.is(set.upstream.problem(), undefined);
  t.deepEqual(set.upstream.issuer(), root.certificate);
  const { chain, roots } = await sign(set);
  t.is(chain.length, 1);
  t.deepEqual(roots, [root.certificate]);
  t.deepEqual(set.upstream.roots(), roots);
  t.deepEqual(set.answers.map(({ upstream }) => upstream), ['files', 'files']);
  t.deepEqual(set.warnings, []);
});

test('under an intermediate the chain holds it and what lies above it, and not the root, wherever the files name that', async (t) => {
  const root = await testCa({ name: 'CN=Root' });
  const middle = await testCa({ name: 'CN=Middle', parent: root });
  const low = await testCa({ name: 'CN=Low', parent: middle, pathLength: 1 });
  for (const files of [
    caFiles(low, { chain: [middle], roots: [root] }),
    caFiles(low, { chain: [middle, root], roots: [root] }),
    caFiles(low, { chain: [root, middle], roots: [await testCa()] }),
  ]) {
    const { chain, roots } = await sign(await openWith(t, files));
    t.deepEqual(chain.slice(1), [low.certificate, middle.certificate]);
    t.deepEqual(roots[0], root.certificate);
  }
});

test('the certificate file alone is enough when it ends at a root', async (t) => {
  const root = await testCa();
  const low = await testCa({ parent: root });
  const directory = temporaryDirectory(t);
  const options = write(directory, caFiles(low, { chain: [root] }));
  const set = await open(t, { ...options, files: { ...options.files, roots: [] } }, directory);
  t.deepEqual(set.upstream.roots(), [root.certificate]);
});

for (const keyType of ['ec-p256', 'ec-p384', 'rsa-2048'] as const) {
  test(`a key of the type ${keyType} is read as PKCS#8 and in its own form`, async (t) => {
    const root = await testCa({ keyType });
    const own = root.privateKey.export({ format: 'pem', type: keyType === 'rsa-2048' ? 'pkcs1' : 'sec1' }).toString();
    const parameters = '-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n';
    for (const key of [keyPem(root), own, parameters + own]) t.is(await refusal(t, { ...caFiles(root), 'tls.key': key }), 'good');
    t.is((await sign(await openWith(t, caFiles(root)))).chain.length, 1);
  });
}

const STRING_KINDS = [
  ['UTF8String', 0x0c, Buffer.from('Signet CA')],
  ['PrintableString', 0x13, Buffer.from('Signet CA')],
  ['TeletexString', 0x14, Buffer.from('Signet CA')],
  ['IA5String', 0x16, Buffer.from('Signet CA')],
  ['BMPString', 0x1e, Buffer.from('Signet CA', 'utf16le').swap16()],
] as const;

for (const [kind, tag, text] of STRING_KINDS) {
  test(`the name of the CA above is copied octet by octet when it is a ${kind}`, async (t) => {
    const commonName = Buffer.from('0603550403', 'hex');
    const name = derElement(0x30, derElement(0x31, derElement(0x30, commonName, derElement(tag, text))));
    const root = await testCa({ name: new x509.Name(name) });
    t.true(root.certificate.includes(name), 'the test made what it wanted');
    const { chain } = await sign(await openWith(t, caFiles(root)));
    t.deepEqual(namesOf(chain[0] ?? Buffer.of()).issuer, name);
  });
}

test('every refusal of a certificate names the file, what is wrong and what to do', async (t) => {
  const expired = Date.UTC(2029, 11, 31);
  const later = Date.UTC(2030, 0, 2);
  const proper = 'issue a CA certificate with CA:TRUE and the key usage keyCertSign';
  const root = await testCa({ name: 'CN=Root' });
  const cases: readonly (readonly [TestCa, string, string])[] = [
    [await testCa({ ca: false }), 'it is not a CA: it lacks CA:TRUE (X509-SVID §4.1)', proper],
    [await testCa({ uses: x509.KeyUsageFlags.digitalSignature }), 'it may not sign certificates: it lacks the key usage keyCertSign (X509-SVID §4.3)', proper],
    [await testCa({ pathLength: 0 }), 'its path length is 0, so no node CA can stand below it (RFC 5280 §4.2.1.9)', 'issue it with a path length of at least 1, or without one'],
    [await testCa({ to: expired }), 'it has expired at 2029-12-31T00:00:00.000Z', 'renew it'],
    [await testCa({ from: later }), 'it is not valid before 2030-01-02T00:00:00.000Z', 'wait, or set the clock of this machine right'],
    [await testCa({ name: '' }), 'its subject is empty (RFC 5280 §4.1.2.6)', 'issue it with a subject'],
    [await testCa({ isNameless: true }), 'it has no subject key identifier (RFC 5280 §4.2.1.2)', 'issue it with one'],
    [
      await testCa({ uris: ['spiffe://other.test'] }),
      'its SPIFFE ID is spiffe://other.test and not spiffe://example.org (X509-SVID §3.2, §5.1)',
      'use the CA of this trust domain, or one without SPIFFE ID',
    ],
    [
      await testCa({ uris: ['spiffe://example.org/ca'] }),
      'its SPIFFE ID is spiffe://example.org/ca and not spiffe://example.org (X509-SVID §3.2, §5.1)',
      'use the CA of this trust domain, or one without SPIFFE ID',
    ],
    [
      await testCa({ more: [new x509.Extension('2.5.29.30', true, permittingUriHost('other.test'))] }),
      'its name constraints permit URIs of other.test and not of example.org (X509-SVID §4.2)',
      'use a CA that may sign for this trust domain',
    ],
    [
      await testCa({ more: [new x509.Extension('1.2.3.4', true, Buffer.from('0500', 'hex'))] }),
      'its critical extension 1.2.3.4 is not understood (RFC 5280 §4.2)',
      'issue it without that extension, or not critical',
    ],
    [await testCa({ parent: root, hash: 'SHA-1' }), 'it is signed with SHA-1', 'have it signed with SHA-256 or better'],
    [
      await testCa({ parent: await testCa({ name: 'CN=Elsewhere' }) }),
      'no root that is given verifies it; its issuer is "CN=Elsewhere"',
      'add the root at the end of that path to the roots, and what lies between to the certificate',
    ],
  ];
  for (const [ca, what, remedy] of cases) t.is(await refusal(t, caFiles(ca, { roots: [root] })), certificateText(what, remedy));
});

test('what stands above the CA is judged like it', async (t) => {
  const tight = await testCa({ name: 'CN=Tight', pathLength: 1 });
  const middle = await testCa({ name: 'CN=Middle', parent: tight });
  const low = await testCa({ parent: middle });
  const above = (name: string, what: string): string => `above it stands "${name}", and of that: ${what}`;
  t.is(
    await refusal(t, caFiles(low, { chain: [middle], roots: [tight] })),
    certificateText(above('CN=Tight', 'its path length is 1, and 3 CAs would stand below it (RFC 5280 §4.2.1.9)'), 'issue it with a path length of at least 3, or without one'),
  );
  const root = await testCa();
  const old = await testCa({ name: 'CN=Old', parent: root, to: Date.UTC(2029, 11, 31) });
  t.is(await refusal(t, caFiles(await testCa({ parent: old }), { chain: [old], roots: [root] })), certificateText(above('CN=Old', 'it has expired at 2029-12-31T00:00:00.000Z'), 'renew it'));
});

test('every refusal of a key names the file, what is wrong and what to do', async (t) => {
  const root = await testCa();
  const goodKeys = 'use an EC key on P-256 or P-384, or an RSA key of at least 2048 bits';
  const pkcs8 = { format: 'pem', type: 'pkcs8' } as const;
  const encrypted = root.privateKey.export({ ...pkcs8, cipher: 'aes-256-cbc', passphrase: 'secret' }).toString();
  const oldEncrypted = root.privateKey.export({ format: 'pem', type: 'sec1', cipher: 'aes-256-cbc', passphrase: 'secret' }).toString();
  const decrypt = 'decrypt it, for example with `openssl pkey`, and protect the file by its mode';
  const cases: readonly (readonly [string, string, string])[] = [
    [keyPem(await newKeyPair('ec-p256')), `it does not belong to the certificate of "${String(root.name)}"`, 'replace both together; a half-written pair is looked at again'],
    [encrypted, 'it is encrypted', decrypt],
    [oldEncrypted, 'it is encrypted', decrypt],
    [generateKeyPairSync('ed25519').privateKey.export(pkcs8).toString(), 'the key is of the type ed25519', goodKeys],
    [generateKeyPairSync('ec', { namedCurve: 'P-521' }).privateKey.export(pkcs8).toString(), 'the key is on the curve secp521r1', goodKeys],
    [generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey.export(pkcs8).toString(), 'the RSA key has 1024 bits', goodKeys],
    ['', 'it holds no private key in PEM', "write the CA's private key there as PEM"],
    [keyPem(root) + keyPem(root), 'it holds 2 private keys', 'leave only that of the CA'],
    ['-----BEGIN PRIVATE KEY-----\nAAEC\n-----END PRIVATE KEY-----\n', 'its block PRIVATE KEY is not a private key', 'write the key anew, as PKCS#8, SEC1 or PKCS#1'],
    [keyPem(root).slice(0, 100), 'the block PRIVATE KEY does not end', 'write it anew; a half-written file is looked at again'],
  ];
  for (const [key, what, remedy] of cases) t.is(await refusal(t, { ...caFiles(root), 'tls.key': key }), keyText(what, remedy));
});

test('every refusal of roots names the file, what is wrong and what to do', async (t) => {
  const root = await testCa({ name: 'CN=Root' });
  const low = await testCa({ name: 'CN=Low', parent: root });
  const foreign = await testCa({ name: 'CN=Foreign', uris: ['spiffe://other.test'] });
  const cases: readonly (readonly [string, string, string])[] = [
    [certificatePem(low.certificate), '"CN=Low" is not self-signed: many TLS stacks take no other for a root', 'put intermediates behind the certificate of the CA, and only roots here'],
    [
      certificatePem(root.certificate, foreign.certificate),
      'of "CN=Foreign": its SPIFFE ID is spiffe://other.test and not spiffe://example.org (X509-SVID §3.2, §5.1)',
      'use the CA of this trust domain, or one without SPIFFE ID',
    ],
    [keyPem(root), 'it holds no certificate in PEM', 'write the certificate there as PEM'],
  ];
  for (const [text, what, remedy] of cases) t.is(await refusal(t, { ...caFiles(root), 'ca.crt': text }), rootsText(what, remedy));
  const broken = await refusal(t, { ...caFiles(root), 'ca.crt': certificatePem(Buffer.from('3000', 'hex')) });
  t.regex(broken, /^the root certificates DIR\/ca.crt cannot be used: it holds something that is no certificate: .* What to do: write it anew, as PEM\.$/);
});

test('no text of a refusal holds a line of the key', async (t) => {
  const root = await testCa();
  const key = keyPem(root);
  const secret = key.split('\n')[1] ?? '';
  for (const text of [key.replace('AgEA', 'AgEB'), key.slice(0, 150), key.replaceAll('PRIVATE', 'RSA PRIVATE')]) {
    t.false((await refusal(t, { ...caFiles(root), 'tls.key': text })).includes(secret));
  }
});

test('files that others may write, or could replace, are refused; a readable key is used with a warning', async (t) => {
  const root = await testCa();
  const directory = join(temporaryDirectory(t), 'ca');
  mkdirSync(directory, { mode: 0o755 });
  write(directory, caFiles(root));
  for (const name of ['tls.crt', 'tls.key', 'ca.crt']) {
    const path = join(directory, name);
    for (const mode of [0o620, 0o602]) {
      chmodSync(path, mode);
      t.regex(await check(directory), new RegExp(`DIR/${name} cannot be used: others may write it \\(mode 0${mode.toString(8)}\\)\\. What to do: .chmod go-w DIR/${name}`));
    }
    chmodSync(path, 0o644);
  }
  chmodSync(directory, 0o777);
  t.regex(await check(directory), /others may replace it, since they may write to DIR \(mode 0777\)\. What to do: `chmod go-w DIR`\.$/);
  chmodSync(directory, 0o1777);
  t.is(await check(directory), 'good', 'as the kubelet mounts Secrets');
  const { warnings, upstream } = await open(t, optionsFor(directory), directory);
  t.is(upstream.problem(), undefined);
  t.deepEqual(warnings, [`the CA's private key ${directory}/tls.key may be read by others (mode 0644)`]);
});

testIf(needsRoot, 'files and directories of other users are refused', async (t) => {
  const root = await testCa();
  const directory = join(temporaryDirectory(t), 'ca');
  mkdirSync(directory, { mode: 0o755 });
  write(directory, caFiles(root));
  chownSync(join(directory, 'tls.key'), 12_345, 0);
  t.regex(await check(directory), /DIR\/tls\.key cannot be used: it belongs to uid 12345, who could replace it\. What to do: `chown` it to root/);
  chownSync(join(directory, 'tls.key'), 0, 0);
  chownSync(directory, 12_345, 0);
  t.regex(await check(directory), /its directory DIR belongs to uid 12345, who could replace it/);
});

test('missing, endless and special files are refused', async (t) => {
  const root = await testCa();
  const directory = temporaryDirectory(t);
  write(directory, caFiles(root));
  rmSync(join(directory, 'tls.key'));
  t.regex(await check(directory), /^the CA's private key DIR\/tls\.key cannot be used: ENOENT: .* What to do: put it there, readable for uid \d+\.$/);
  execFileSync('mkfifo', ['-m', '600', join(directory, 'tls.key')]);
  t.is(await check(directory), keyText('it is not a regular file', 'put a file there'));
  rmSync(join(directory, 'tls.key'));
  mkdirSync(join(directory, 'tls.key'));
  t.is(await check(directory), keyText('it is not a regular file', 'put a file there'));
  rmSync(join(directory, 'tls.key'), { recursive: true });
  writeFileSync(join(directory, 'tls.key'), 'x'.repeat(300_000), { mode: 0o600 });
  t.is(await check(directory), keyText('it has 300000 bytes, more than 262144', 'put the PEM file there'));
});

const SWAPS: Readonly<Record<string, (directory: string, files: Readonly<Record<string, string>>) => void>> = {
  'plain overwrites': (directory, files) => void write(directory, files),
  'files that are renamed into their place': (directory, files) => {
    for (const [name, text] of Object.entries(files)) {
      writeFileSync(join(directory, `.${name}.swp`), text, { mode: 0o600 });
      renameSync(join(directory, `.${name}.swp`), join(directory, name));
    }
  },
  'files that are removed and written anew': (directory, files) => {
    for (const name of Object.keys(files)) rmSync(join(directory, name));
    write(directory, files);
  },
  'links that are turned to other files': (directory, files) => {
    for (const [name, text] of Object.entries(files)) {
      writeFileSync(join(directory, `next-${name}`), text, { mode: 0o600 });
      rmSync(join(directory, name));
      symlinkSync(`next-${name}`, join(directory, name));
    }
  },
};

for (const [title, swap] of Object.entries(SWAPS)) {
  test(`${title} are taken at the next look`, async (t) => {
    const [first, second] = [await testCa(), await testCa()];
    const set = await openWith(t, caFiles(first));
    let changes = 0;
    set.upstream.onChange(() => void (changes += 1));
    await set.look();
    t.is(changes, 0, 'nothing has changed');
    swap(set.directory, caFiles(second));
    await set.look();
    t.deepEqual(set.upstream.issuer(), second.certificate);
    t.deepEqual(set.upstream.roots(), [second.certificate]);
    t.is(changes, 1);
    t.deepEqual(set.failures, []);
  });
}

test('a Secret that a kubelet swaps is taken at the next look', async (t) => {
  const [first, second] = [await testCa(), await testCa()];
  const secret = new MountedSecret(join(temporaryDirectory(t), 'ca'), caFiles(first));
  chmodSync(secret.directory, 0o1777);
  const set = await open(t, optionsFor(secret.directory), secret.directory);
  t.deepEqual(set.upstream.issuer(), first.certificate);
  for (const ca of [second, first]) {
    secret.update(caFiles(ca));
    await set.look();
    t.deepEqual(set.upstream.issuer(), ca.certificate);
  }
  t.deepEqual(set.failures, []);
});

test('an overwrite of the same size and with the same times is seen', async (t) => {
  const root = await testCa({ name: 'CN=Same' });
  const again = await testCa({ name: 'CN=Same', keys: root });
  const set = await openWith(t, caFiles(root));
  if (again.certificate.length === root.certificate.length) t.pass();
  execFileSync('cp', ['-p', join(set.directory, 'tls.crt'), join(set.directory, 'kept')]);
  write(set.directory, caFiles(again));
  execFileSync('touch', ['-r', join(set.directory, 'kept'), join(set.directory, 'tls.crt')]);
  await set.look();
  t.deepEqual(set.upstream.issuer(), again.certificate);
});

for (const [order, names] of [
  ['certificate', ['tls.crt', 'tls.key', 'ca.crt']],
  ['key', ['tls.key', 'tls.crt', 'ca.crt']],
] as const) {
  test(`while a pair is half written, ${order} first, the last good one goes on`, async (t) => {
    const [first, second] = [await testCa(), await testCa()];
    const set = await openWith(t, caFiles(first));
    const next = caFiles(second);
    write(set.directory, { [names[0]]: next[names[0]]?.slice(0, 80) ?? '' });
    await set.look();
    write(set.directory, { [names[0]]: next[names[0]] ?? '' });
    await set.look();
    t.regex(set.upstream.problem() ?? '', /it does not belong to the certificate/);
    t.deepEqual((await sign(set)).roots, [first.certificate], 'the last good one signs');
    t.deepEqual(set.upstream.roots(), [first.certificate]);
    t.is(set.failures.length, 2);
    await set.look();
    t.is(set.failures.length, 2, 'each reason is told once');
    t.is(set.failures[0]?.retryMs, POLL);
    write(set.directory, next);
    await set.look();
    t.is(set.upstream.problem(), undefined);
    t.deepEqual((await sign(set)).roots, [second.certificate]);
  });
}

test('a reason that comes back after all was well is told again, and being well again is worth asking', async (t) => {
  const root = await testCa();
  const set = await openWith(t, caFiles(root));
  let changes = 0;
  set.upstream.onChange(() => void (changes += 1));
  for (let round = 1; round <= 2; round += 1) {
    rmSync(join(set.directory, 'tls.key'));
    await set.look();
    await set.look();
    t.is(set.failures.length, round);
    write(set.directory, caFiles(root));
    await set.look();
    t.is(changes, round);
  }
});

test('files that are not good when it opens sign nothing until they are', async (t) => {
  const directory = temporaryDirectory(t);
  const set = await open(t, optionsFor(directory), directory);
  t.deepEqual(set.upstream.roots(), []);
  t.is(set.upstream.issuer(), undefined);
  await t.throwsAsync(sign(set), { code: 'state_refused', message: set.upstream.problem() ?? '' });
  write(directory, caFiles(await testCa()));
  await set.look();
  t.is((await sign(set)).chain.length, 1);
});

test('a CA that is not valid yet becomes good by time alone, and one that ends signs nothing more', async (t) => {
  const now = Date.UTC(2030, 0, 1);
  const set = await openWith(t, caFiles(await testCa({ from: now + POLL, to: now + 3 * POLL })));
  t.regex(set.upstream.problem() ?? '', /not valid before/);
  await set.look();
  t.is(set.upstream.problem(), undefined);
  set.clock.advance(2 * POLL);
  await t.throwsAsync(sign(set), { code: 'state_refused', message: /has expired at 2030-01-01T00:00:15\.000Z\. What to do: renew it\.$/ });
  await set.upstream.look();
  t.regex(set.upstream.problem() ?? '', /it has expired/);
});

test('a node CA never outlives what stands above it, which is told once', async (t) => {
  const end = Date.UTC(2030, 0, 1) + DAY / 2;
  const root = await testCa({ to: end });
  const set = await openWith(t, caFiles(await testCa({ parent: root }), { roots: [root] }));
  for (let round = 0; round < 2; round += 1) {
    const { chain } = await sign(set);
    t.is(new x509.X509Certificate(chain[0] ?? Buffer.of()).notAfter.getTime(), end);
  }
  t.deepEqual(set.warnings, [`the CA in ${set.directory}/tls.crt, or one above it, ends at 2030-01-01T12:00:00.000Z: node CAs are shortened to that. What to do: renew it.`]);
});

test('further roots are believed, expired ones are left out with a warning, and a CA for servers only is warned of (XS-28)', async (t) => {
  const root = await testCa({ more: [new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth])], name: 'CN=Narrow' });
  const next = await testCa();
  const old = await testCa({ name: 'CN=Old', to: Date.UTC(2029, 11, 31) });
  const set = await openWith(t, caFiles(root, { roots: [old, next, root] }));
  t.deepEqual(set.upstream.roots(), [root.certificate, next.certificate]);
  t.deepEqual(set.warnings, [
    'the extended key usage of "CN=Narrow" lacks serverAuth or clientAuth: many TLS stacks will refuse what is signed under it',
    'the root "CN=Old" is left out: it has expired at 2029-12-31T00:00:00.000Z',
  ]);
});

test('once closed it looks no more', async (t) => {
  const set = await openWith(t, caFiles(await testCa()));
  await set.upstream.close();
  t.is(set.clock.pending, 0);
});
