import { X509Certificate, createPrivateKey } from 'node:crypto';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { testIf } from '../support/kernel-conditions.ts';
import { KUSTOMIZE, findProgram, run, type Ran } from './manifests.ts';

const needsOpenssl = [findProgram('openssl') !== undefined, 'needs openssl'] as const;

/** A kubectl with one Secret in a directory. `get` fails where the file `down` is. */
const KUBECTL = `#!/bin/sh
set -eu
here=$(dirname "$0")
echo "$*" >>"$here/calls"
case "$1 $2" in
  'get secret')
    if [ -e "$here/down" ]; then echo 'connection refused' >&2; exit 1; fi
    if [ -e "$here/tls.crt" ]; then printf 'signet-ca '; base64 -w0 "$here/tls.crt"; fi ;;
  'get namespace') [ -e "$here/namespace" ] ;;
  'apply --filename') cat >"$here/namespace" ;;
  'create secret')
    if [ -e "$here/tls.crt" ]; then echo 'already exists' >&2; exit 1; fi
    for argument in "$@"; do
      case $argument in tls.crt=* | tls.key=* | ca.crt=*) cp "\${argument#*=}" "$here/\${argument%%=*}" ;; esac
    done ;;
  *) exit 64 ;;
esac
`;

interface Setting {
  readonly directory: string;
  readonly create: (...args: string[]) => Ran;
  readonly read: (name: string) => string;
}

function setUp(t: ExecutionContext): Setting {
  const directory = mkdtempSync(join(tmpdir(), 'signet-create-ca-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const kubectl = join(directory, 'kubectl');
  writeFileSync(kubectl, KUBECTL, { mode: 0o755 });
  const scratch = mkdtempSync(join(directory, 'scratch-'));
  const env = { ...process.env, KUBECTL: kubectl, TMPDIR: scratch };
  return {
    directory,
    create: (...args) => {
      const ran = run('sh', [join(KUSTOMIZE, 'create-ca.sh'), ...args], '', env);
      t.deepEqual(readdirSync(scratch), [], 'nothing is left behind');
      return ran;
    },
    read: (name) => readFileSync(join(directory, name), 'utf8'),
  };
}

testIf(needsOpenssl, 'create-ca.sh makes a CA of the trust domain under which one more CA may be', (t) => {
  const { create, read } = setUp(t);
  const { status, stderr } = create('prod.example.org');
  t.is(status, 0, stderr);
  const certificate = new X509Certificate(read('tls.crt'));
  t.is(certificate.subjectAltName, 'URI:spiffe://prod.example.org');
  t.true(certificate.ca);
  t.true(certificate.verify(certificate.publicKey));
  t.true(certificate.checkPrivateKey(createPrivateKey(read('tls.key'))));
  t.is(certificate.publicKey.asymmetricKeyDetails?.namedCurve, 'prime256v1');
  t.is(read('ca.crt'), read('tls.crt'));
  const text = run('openssl', ['x509', '-noout', '-text'], read('tls.crt')).stdout;
  t.regex(text, /Basic Constraints: critical\s+CA:TRUE, pathlen:1/);
  t.regex(text, /Key Usage: critical\s+Certificate Sign, CRL Sign\n/);
  t.regex(text, /Subject Key Identifier/);
});

testIf(needsOpenssl, 'create-ca.sh makes the namespace with the labels that agents need', (t) => {
  const { create, read } = setUp(t);
  t.is(create('example.org').status, 0);
  t.is(read('namespace'), readFileSync(join(KUSTOMIZE, 'namespace.yaml'), 'utf8'));
  t.regex(read('calls'), /^create secret generic signet-ca --namespace signet-system --type kubernetes.io\/tls /m);
});

testIf(needsOpenssl, 'a second run of create-ca.sh changes nothing and is no failure', (t) => {
  const { create, read } = setUp(t);
  t.is(create('example.org').status, 0);
  const before = read('tls.crt');
  const again = create('example.org');
  t.is(again.status, 0);
  t.is(again.stdout, 'the Secret signet-system/signet-ca is there already, with a CA of spiffe://example.org; nothing changed\n');
  t.is(read('tls.crt'), before);
});

testIf(needsOpenssl, 'create-ca.sh refuses to replace the CA of another trust domain', (t) => {
  const { create, read } = setUp(t);
  t.is(create('example.org').status, 0);
  const before = read('tls.crt');
  const other = create('other.org');
  t.is(other.status, 1);
  t.is(other.stderr, 'create-ca: the Secret signet-system/signet-ca is there already, with a CA of spiffe://example.org; nothing changed\n');
  t.is(read('tls.crt'), before);
});

testIf(needsOpenssl, 'create-ca.sh leaves a Secret alone that is no CA of SPIFFE', (t) => {
  const { create, directory } = setUp(t);
  writeFileSync(join(directory, 'tls.crt'), 'something else');
  const { status, stderr } = create('example.org');
  t.is(status, 1);
  t.regex(stderr, /is there already, with a CA of something that names no trust domain; nothing changed/);
});

testIf(needsOpenssl, 'create-ca.sh makes nothing where the cluster does not answer', (t) => {
  const { create, directory, read } = setUp(t);
  writeFileSync(join(directory, 'down'), '');
  const { status, stderr } = create('example.org');
  t.not(status, 0);
  t.regex(stderr, /connection refused/);
  t.notRegex(read('calls'), /create/);
});

for (const domain of ['', 'Example.org', 'spiffe://example.org', 'a b', 'a/b', 'x'.repeat(256)]) {
  testIf(needsOpenssl, `create-ca.sh refuses ${JSON.stringify(domain.slice(0, 24))} as a trust domain`, (t) => {
    const { create, directory } = setUp(t);
    t.is(create(domain).status, 2);
    t.deepEqual(readdirSync(directory).filter((name) => name === 'calls'), []);
  });
}

testIf(needsOpenssl, 'create-ca.sh takes trust domains longer than a common name may be', (t) => {
  const { create, read } = setUp(t);
  const domain = `${'long-name.'.repeat(20)}example.org`;
  t.is(create(domain).status, 0);
  t.is(new X509Certificate(read('tls.crt')).subjectAltName, `URI:spiffe://${domain}`);
});
