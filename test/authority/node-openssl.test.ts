import 'reflect-metadata';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as x509 from '@peculiar/x509';
import type { ExecutionContext } from 'ava';
import type { NameConstraint } from '../../src/authority/name-constraints.ts';
import { EventBus } from '../../src/events.ts';
import { createLog } from '../../src/log.ts';
import { systemRandom } from '../../src/random.ts';
import { KEY_TYPES } from '../../src/spiffe/key-type.ts';
import { parseSpiffeId } from '../../src/spiffe/id.ts';
import { FilesUpstream } from '../../src/upstream/files.ts';
import { caFiles, caTools, certificatePem, testCa } from '../support/authorities.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { createLeaf } from '../support/library-certificates.ts';
import { testIf } from '../support/kernel-conditions.ts';
import { temporaryDirectory } from '../support/kernel-processes.ts';
import { openNodeAuthority, trustDomain, type Opened } from '../support/node-authorities.ts';
import { fixedKeys } from '../support/signers.ts';

const needsOpenssl = [spawnSync('openssl', ['version']).status === 0, 'needs openssl'] as const;

async function openFiles(t: ExecutionContext, clock: FakeClock, files: Readonly<Record<string, string>>, nameConstraint: NameConstraint): Promise<Opened> {
  const directory = temporaryDirectory(t);
  for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text, { mode: 0o600 });
  const paths = { certificate: join(directory, 'tls.crt'), key: join(directory, 'tls.key'), roots: [join(directory, 'ca.crt')] };
  const upstream = await FilesUpstream.open({ trustDomain, files: paths }, { clock, events: new EventBus(), log: createLog('silent'), ca: caTools });
  t.teardown(() => upstream.close());
  mkdirSync(join(directory, 'private'), { mode: 0o700 });
  return openNodeAuthority(t, clock, upstream, { privateDir: join(directory, 'private'), nameConstraint });
}

/** What `openssl verify` says at the clock's time, of the leaf with what came behind it. */
function verify(t: ExecutionContext, clock: FakeClock, chain: readonly Buffer[], roots: readonly Buffer[], purpose: string): string {
  const directory = temporaryDirectory(t);
  const path = (name: string, ...ders: readonly Buffer[]): string => {
    writeFileSync(join(directory, name), certificatePem(...ders));
    return join(directory, name);
  };
  const [leaf = Buffer.of(), ...between] = chain;
  const time = String(Math.floor(clock.now() / 1000));
  const options = ['-x509_strict', '-attime', time, '-purpose', purpose, '-CAfile', path('roots', ...roots), '-untrusted', path('between', ...between)];
  const result = spawnSync('openssl', ['verify', ...options, path('leaf', leaf)], { encoding: 'utf8' });
  return `${result.stdout}${result.stderr}`.replaceAll(directory, '');
}

for (const keyType of KEY_TYPES) {
  for (const nameConstraint of ['none', 'uri'] as const) {
    testIf(needsOpenssl, `OpenSSL accepts leaves under a CA with a key of the type ${keyType}, with the name constraint ${nameConstraint}`, async (t) => {
      const clock = new FakeClock();
      const root = await testCa({ keyType });
      const middle = await testCa({ parent: root, keyType, pathLength: 2 });
      const low = await testCa({ parent: middle, keyType, pathLength: 1, uris: ['spiffe://example.org'] });
      for (const files of [caFiles(root), caFiles(low, { chain: [middle], roots: [root] })]) {
        const { leaf, authority } = await openFiles(t, clock, files, nameConstraint);
        const { chain } = await leaf();
        for (const purpose of ['sslserver', 'sslclient']) {
          t.is(verify(t, clock, chain, authority.current().x509Authorities, purpose), '/leaf: OK\n');
        }
        const text = execFileSync('openssl', ['x509', '-inform', 'der', '-noout', '-ext', 'basicConstraints,keyUsage,nameConstraints'], { input: chain[1], encoding: 'utf8' });
        t.regex(text, /Basic Constraints: critical\s+CA:TRUE, pathlen:0\n/);
        t.regex(text, /Key Usage: critical\s+Certificate Sign, CRL Sign\n/);
        t.is(/Name Constraints: critical\s+Permitted:\s+URI:example\.org\n/.test(text), nameConstraint === 'uri');
      }
    });
  }
}

testIf(needsOpenssl, 'XS-17: OpenSSL refuses a leaf of another trust domain under a constrained node CA, and takes it without', async (t) => {
  const clock = new FakeClock();
  const root = await testCa();
  const { publicKey } = await fixedKeys();
  for (const [nameConstraint, expected] of [['uri', /permitted subtree violation/], ['none', /leaf: OK/]] as const) {
    const { authority } = await openFiles(t, clock, caFiles(root), nameConstraint);
    const asked = { id: parseSpiffeId('spiffe://other.test/a'), publicKey, dnsNames: [], notBefore: clock.now(), notAfter: clock.now() + 60_000 };
    const { der } = await createLeaf(authority.issuer(), asked, systemRandom);
    t.regex(verify(t, clock, [der, ...authority.intermediates()], authority.current().x509Authorities, 'sslserver'), expected);
  }
});

testIf(needsOpenssl, 'a node CA can make no further CA', async (t) => {
  const clock = new FakeClock();
  const { authority } = await openFiles(t, clock, caFiles(await testCa()), 'none');
  const issuer = authority.issuer();
  const parent = { ...issuer, name: new x509.Name(issuer.subjectName), keyId: issuer.subjectKeyId.toString('hex') };
  const dates = { from: clock.now(), to: clock.now() + 60_000 };
  const below = await testCa({ parent, ...dates });
  const leaf = await testCa({ parent: below, ca: false, uses: 1, ...dates });
  const chain = [leaf.certificate, below.certificate, ...authority.intermediates()];
  t.regex(verify(t, clock, chain, authority.current().x509Authorities, 'any'), /path length constraint exceeded/);
});
