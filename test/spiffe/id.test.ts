import { readFileSync } from 'node:fs';
import test from 'ava';
import { SignetError } from '../../src/errors.ts';
import { idOfTrustDomain, parseSpiffeId, parseTrustDomain, pathOf, trustDomainOf } from '../../src/spiffe/id.ts';

interface Vectors {
  readonly accept: readonly string[];
  readonly reject: readonly { readonly rule: string; readonly text: string }[];
}

const vectors = JSON.parse(readFileSync(new URL('../vectors/spiffe-ids.json', import.meta.url), 'utf8')) as Vectors;

function isAccepted(text: string): boolean {
  try {
    parseSpiffeId(text);
    return true;
  } catch (error) {
    if (error instanceof SignetError && error.code === 'invalid_spiffe_id') return false;
    throw error;
  }
}

for (const text of vectors.accept) {
  test(`ID-01…19: ${text.slice(0, 70)} (${text.length}) is a SPIFFE ID, unchanged`, (t) => {
    t.is(String(parseSpiffeId(text)), text);
  });
}

for (const { rule, text } of vectors.reject) {
  test(`${rule}: ${JSON.stringify(text.slice(0, 60))} (${text.length}) is refused`, (t) => {
    t.throws(() => parseSpiffeId(text), { instanceOf: SignetError, code: 'invalid_spiffe_id' });
  });
}

test('ID-08: in the middle of a trust domain name exactly 39 values pass, and "/" ends it', (t) => {
  const passed = sweep((character) => `spiffe://exa${character}mple/a`);
  t.is(passed.length, 40 - 1 + 1);
  t.is(passed.join(''), '-./0123456789_abcdefghijklmnopqrstuvwxyz');
});

test('ID-15: in the middle of a path segment exactly 65 values pass, and "/"', (t) => {
  const passed = sweep((character) => `spiffe://example.org/a${character}b`);
  t.is(passed.length, 66);
  t.is(passed.join(''), '-./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz');
});

test('ID-10: a name that looks like an address stays as it is', (t) => {
  t.is(trustDomainOf(parseSpiffeId('spiffe://001.2.3.4/a')), parseTrustDomain('001.2.3.4'));
});

test('the parts of an ID', (t) => {
  const id = parseSpiffeId('spiffe://example.org/ns/prod');
  t.is(String(trustDomainOf(id)), 'example.org');
  t.is(pathOf(id), '/ns/prod');
  t.is(pathOf(parseSpiffeId('spiffe://example.org')), '');
});

test('ID-14: the ID of a trust domain has no slash, and reads back', (t) => {
  const name = parseTrustDomain('example.org');
  t.is(String(idOfTrustDomain(name)), 'spiffe://example.org');
  t.is(parseTrustDomain('spiffe://example.org'), name);
});

for (const text of ['', 'Example.org', 'example.org/', 'spiffe://example.org/a', 'a b', 'a:1', 'a'.repeat(256)]) {
  test(`ID-02, ID-07, ID-19: ${JSON.stringify(text.slice(0, 30))} is no trust domain`, (t) => {
    t.throws(() => parseTrustDomain(text), { code: 'invalid_spiffe_id' });
  });
}

test('a refusal names the rule and shortens what it shows', (t) => {
  t.throws(() => parseSpiffeId('spiffe://example.org//a'), {
    message: '"spiffe://example.org//a" is not a SPIFFE ID: a path has no empty segment and does not end with "/"',
  });
  const error = t.throws(() => parseSpiffeId('x'.repeat(5_000)));
  t.true((error?.message.length ?? Infinity) < 200);
});

function sweep(make: (character: string) => string): string[] {
  return Array.from({ length: 256 }, (_, code) => String.fromCharCode(code)).filter((character) => isAccepted(make(character)));
}
