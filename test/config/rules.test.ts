import test from 'ava';
import { parseConfig } from '../../src/config/load.ts';
import { entry, problemsOf, withEntries } from './refusals.ts';

const BASE = 'trustDomain: example.org\n';

test('an ID of another trust domain is refused', (t) => {
  t.deepEqual(problemsOf(withEntries('{ id: spiffe://example.com/web, selectors: ["unix:uid:1"] }')), [
    {
      path: 'entries[0].id',
      found: '"spiffe://example.com/web"',
      allowed: 'an ID in the trust domain example.org (trustDomain)',
    },
  ]);
});

for (const yaml of ['{ id: spiffe://example.org/web, selectors: [] }', '{ id: spiffe://example.org/web }']) {
  test(`an entry without selectors is refused: ${yaml}`, (t) => {
    const found = yaml.includes('[]') ? '[]' : 'nothing';
    const allowed = 'at least one selector: without any it would apply to every caller';
    t.deepEqual(problemsOf(withEntries(yaml)), [{ path: 'entries[0].selectors', found, allowed }]);
  });
}

test('a selector that is there twice is refused', (t) => {
  t.deepEqual(problemsOf(withEntries(entry('', '["unix:uid:1", "unix:gid:1", "unix:uid:1"]'))), [
    { path: 'entries[0].selectors[2]', found: '"unix:uid:1"', allowed: 'each selector once' },
  ]);
});

const SHA = `unix:sha256:${'a'.repeat(64)}`;

test('an entry with only narrowing selectors is refused', (t) => {
  const allowed =
    'a uid, user, gid, group or k8s:ns selector among them: a process can change its path and sha256 by exec after it has connected';
  t.deepEqual(problemsOf(withEntries(entry('', '["unix:path:/bin/a"]'))), [
    { path: 'entries[0].selectors', found: '["unix:path:/bin/a"]', allowed },
  ]);
  t.is(problemsOf(withEntries(entry('', `["unix:path:/bin/a", "${SHA}"]`)))[0]?.allowed, allowed);
  for (const broad of ['uid:1', 'user:a', 'gid:1', 'group:a']) {
    t.deepEqual(problemsOf(withEntries(entry('', `["unix:path:/bin/a", "unix:${broad}"]`))), []);
  }
});

test('path and sha256 selectors need attestation.unix.path', (t) => {
  const allowed = 'path and sha256 selectors only with attestation.unix.path: true, else they never match';
  const yaml = `${BASE}entries:\n  - ${entry('', `["unix:uid:1", "unix:path:/bin/a", "${SHA}"]`)}\n`;
  t.deepEqual(problemsOf(yaml), [
    { path: 'entries[0].selectors[1]', found: '"unix:path:/bin/a"', allowed },
    { path: 'entries[0].selectors[2]', found: `"${SHA.slice(0, 60)}"…`, allowed },
  ]);
});

test('an authority lives at least twice as long as an SVID', (t) => {
  t.deepEqual(problemsOf(`${BASE}x509: { ttl: 1h }\nauthority: { ttl: 119m }\n`), [
    { path: 'authority.ttl', found: '"119m"', allowed: 'at least 2h, twice x509.ttl (1h)' },
  ]);
  t.deepEqual(problemsOf(`${BASE}x509: { ttl: 1h }\nauthority: { ttl: 120m }\n`), []);
});

test('the default lifetime of the authority is held against a longer one of SVIDs', (t) => {
  t.deepEqual(problemsOf(`${BASE}x509: { ttl: 13h }\n`), [
    { path: 'authority.ttl', found: '"24h" (the default)', allowed: 'at least 26h, twice x509.ttl (13h)' },
  ]);
});

test('an SVID of an entry does not outlive its authority', (t) => {
  t.deepEqual(problemsOf(withEntries(entry('x509Ttl: 13h'))), [
    { path: 'entries[0].x509Ttl', found: '"13h"', allowed: 'at most 12h, half of authority.ttl (24h)' },
  ]);
  t.deepEqual(problemsOf(withEntries(entry('x509Ttl: 12h'))), []);
});

test('a value that is refused itself breaks no further rule', (t) => {
  t.deepEqual(problemsOf(`${BASE}x509: { ttl: 999999 }\n`).map(({ path }) => path), ['x509.ttl']);
  t.deepEqual(problemsOf('trustDomain: X\nentries:\n  - { id: spiffe://x/a, selectors: [] }\n').map(({ path }) => path), [
    'trustDomain',
    'entries[0].selectors',
  ]);
});

test('a DNS name that is there twice is refused', (t) => {
  t.deepEqual(problemsOf(withEntries(entry('dnsNames: [a, b, a]'))), [
    { path: 'entries[0].dnsNames[2]', found: '"a"', allowed: 'each DNS name once' },
  ]);
});

test('64 DNS names are allowed, and 65 are refused', (t) => {
  const names = (count: number): string => Array.from({ length: count }, (_, index) => `n${index}`).join(', ');
  t.deepEqual(problemsOf(withEntries(entry(`dnsNames: [${names(64)}]`))), []);
  const [problem, ...rest] = problemsOf(withEntries(entry(`dnsNames: [${names(65)}]`)));
  t.like(problem, { path: 'entries[0].dnsNames', allowed: 'at most 64 DNS names; these are 65' });
  t.deepEqual(rest, []);
});

test('an ID with the same set of selectors is refused the second time', (t) => {
  const sets = ['["unix:uid:1", "unix:gid:2"]', '["unix:uid:1"]', '["unix:gid:2", "unix:uid:1"]'];
  const yaml = withEntries(...sets.map((selectors) => entry('', selectors)));
  t.deepEqual(problemsOf(yaml), [
    {
      path: 'entries[2]',
      found: '"spiffe://example.org/web"',
      allowed: 'an ID once with the same selectors; entries[0] has both',
    },
  ]);
});

test('entries that repeat each other are not reported again for their hint', (t) => {
  t.deepEqual(problemsOf(withEntries(entry('hint: a'), entry('hint: a'))).map(({ path }) => path), ['entries[1]']);
});

function hinted(name: string, selectors: string): string {
  return `{ id: spiffe://example.org/${name}, selectors: ${selectors}, hint: internal }`;
}

const ONE = '["unix:uid:1"]';
const TWO = '["unix:gid:2", "unix:uid:1"]';

for (const [first, second] of [[ONE, TWO], [TWO, ONE], [ONE, ONE]] as const) {
  test(`WA-23: one hint for ${first} and ${second} is refused`, (t) => {
    t.deepEqual(problemsOf(withEntries(hinted('a', first), hinted('b', second))), [
      {
        path: 'entries[1].hint',
        found: '"internal"',
        allowed: 'a hint that is unique for each caller: a caller of one can be a caller of entries[0], which has the same hint',
      },
    ]);
  });
}

test('WA-23: entries that no caller need share may have one hint, and empty hints never clash', (t) => {
  t.deepEqual(problemsOf(withEntries(hinted('a', ONE), hinted('b', '["unix:uid:2"]'), hinted('c', '["unix:gid:1"]'))), []);
  t.deepEqual(problemsOf(withEntries(entry('', ONE), entry('', TWO))), []);
});

test('WA-23: the first entry with the hint is named', (t) => {
  const problems = problemsOf(withEntries(hinted('a', ONE), hinted('b', '["unix:uid:2"]'), hinted('c', TWO), hinted('d', ONE)));
  t.deepEqual(problems.map(({ path, allowed }) => [path, /entries\[\d+\]/.exec(allowed)?.[0]]), [
    ['entries[2].hint', 'entries[0]'],
    ['entries[3].hint', 'entries[0]'],
  ]);
});

test('as many entries as a file can hold are read', (t) => {
  const all = Array.from({ length: 8_000 }, (_, n) => {
    return `{ id: spiffe://example.org/w/${n}, selectors: ["unix:uid:${n}"], hint: internal, priority: ${n} }`;
  });
  t.is(parseConfig(withEntries(...all), 'signet.yaml', {}).entries.length, 8_000);
});
