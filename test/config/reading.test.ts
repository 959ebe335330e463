import test from 'ava';
import { parseConfig } from '../../src/config/load.ts';
import { errorOf, problemsOf, withEntries } from './refusals.ts';

const RULES = 'YAML 1.2 without custom tags and duplicate keys';

test('a syntax error is shown with its line and column', (t) => {
  t.deepEqual(problemsOf('trustDomain: example.org\nlog: { level: info ]\n'), [
    {
      path: '',
      found: 'line 2, column 20: "log: { level: info ]"',
      allowed: `${RULES}: missed comma between flow collection entries`,
    },
  ]);
});

test('a syntax error at the end of the text is shown with its position', (t) => {
  t.deepEqual(problemsOf('trustDomain: "example.org\n'), [
    { path: '', found: 'line 2, column 1', allowed: `${RULES}: deficient indentation` },
  ]);
});

test('a key that is there twice is refused with its position', (t) => {
  t.deepEqual(problemsOf('trustDomain: a.example\nlog: { level: info }\ntrustDomain: b.example\n'), [
    { path: '', found: 'line 3, column 1: "trustDomain: b.example"', allowed: `${RULES}: duplicated mapping key` },
  ]);
});

for (const tag of ['!env HOME', '!!js/function "x"', '!<tag:example.org,2026:x> a', '!!binary aGk=', '!!timestamp 2026-01-01']) {
  test(`the tag of ${tag} is refused`, (t) => {
    const [problem, ...rest] = problemsOf(`trustDomain: ${tag}\n`);
    t.regex(problem?.allowed ?? '', /without custom tags and duplicate keys: unknown scalar tag/);
    t.deepEqual(rest, []);
  });
}

test('a merge key is an unknown key', (t) => {
  const found = problemsOf('trustDomain: example.org\nx509: &a { ttl: 1h }\njwt: { <<: *a }\n');
  t.deepEqual(found, [{ path: 'jwt["<<"]', found: '"<<"', allowed: 'a key among ttl, issuer, signer, transit, propagation' }]);
});

test('two documents in one file are refused', (t) => {
  t.deepEqual(
    problemsOf('trustDomain: a\n---\ntrustDomain: b\n'),
    [{ path: '', found: '2 YAML documents', allowed: 'one YAML document' }],
  );
});

test('a text of 1 MiB is read, and one of a byte more is refused', (t) => {
  const start = 'trustDomain: example.org\n#';
  t.is(parseConfig(start.padEnd(1_048_576, 'x'), 'signet.yaml', {}).trustDomain as string, 'example.org');
  t.deepEqual(problemsOf(start.padEnd(1_048_577, 'x')), [{ path: '', found: '1048577 bytes', allowed: 'at most 1048576 bytes' }]);
});

test('the size of a text is counted in bytes, not in characters', (t) => {
  t.is(problemsOf(`trustDomain: example.org\n#${'é'.repeat(524_288)}`)[0]?.allowed, 'at most 1048576 bytes');
});

test('an empty text is a file in which everything is missing', (t) => {
  const missing = [{ path: 'trustDomain', found: 'nothing', allowed: 'a trust domain name such as example.org' }];
  for (const text of ['', '# nothing yet\n', '---\n', '{}']) t.deepEqual(problemsOf(text), missing);
});

for (const [text, found] of [['[]', '[]'], ['example.org', '"example.org"'], ['7', '7']] as const) {
  test(`a document that is ${found} is refused`, (t) => {
    const [problem, ...rest] = problemsOf(text);
    t.like(problem, { path: '', found });
    t.regex(problem?.allowed ?? '', /^a mapping with keys among trustDomain, socketPath, /);
    t.deepEqual(rest, []);
  });
}

test('an alias may stand for selectors that are used twice', (t) => {
  const first = '{ id: spiffe://example.org/a, selectors: &s ["unix:uid:1"] }';
  const yaml = withEntries(first, '{ id: spiffe://example.org/b, selectors: *s }');
  t.deepEqual(parseConfig(yaml, 'signet.yaml', {}).entries.map(({ selectors }) => selectors), [['unix:uid:1'], ['unix:uid:1']]);
});

test('aliases that multiply into billions of values are refused', (t) => {
  const items = (level: number): string => (level === 0 ? '1' : Array(9).fill(`*l${level - 1}`).join(', '));
  const levels = Array.from({ length: 12 }, (_, level) => `l${level}: &l${level} [${items(level)}]`);
  t.regex(problemsOf(levels.join('\n'))[0]?.found ?? '', /^more than 200000 values, aliases and variables filled in$/);
});

test('aliases that multiply a long text are refused', (t) => {
  const yaml = `a: &a "${'x'.repeat(100_000)}"\nb: [${Array(50).fill('*a').join(', ')}]\n`;
  t.regex(problemsOf(yaml)[0]?.found ?? '', /^more than 4194304 characters, /);
});

test('an alias to itself is refused', (t) => {
  t.regex(problemsOf('entries: &a [*a]\n')[0]?.found ?? '', /^values nested deeper than 32, /);
});

test('more than a thousand aliases are refused', (t) => {
  const yaml = `a: &a 1\nb: [${Array(1_001).fill('*a').join(', ')}]\n`;
  t.regex(problemsOf(yaml)[0]?.allowed ?? '', /aliases exceeded maxAliases \(1000\)$/);
});

test('values nested too deeply are refused', (t) => {
  t.regex(problemsOf(`entries: ${'['.repeat(100)}${']'.repeat(100)}\n`)[0]?.allowed ?? '', /nesting exceeded maxDepth/);
});

test('variables are filled into strings', (t) => {
  const own = 'entries:\n  - { id: "spiffe://${TD}/w", selectors: ["unix:uid:${U}"] }\n';
  const yaml = `trustDomain: "\${TD}"\nsocketPath: "/run/\${NAME}/\${NAME}.sock"\n${own}`;
  const config = parseConfig(yaml, 'signet.yaml', { TD: 'example.org', NAME: 'x', U: '7' });
  t.is(config.trustDomain as string, 'example.org');
  t.is(config.socketPath, '/run/x/x.sock');
  t.deepEqual([config.entries[0]?.id as string, config.entries[0]?.selectors], ['spiffe://example.org/w', ['unix:uid:7']]);
});

test('$${NAME} is a literal ${NAME}, and a lone $ stays', (t) => {
  const yaml = withEntries('{ id: spiffe://example.org/w, selectors: ["unix:uid:1"], hint: "$${A} $B $$ $$${A}" }');
  const config = parseConfig(yaml, 'signet.yaml', { A: '1' });
  t.is(config.entries[0]?.hint, '${A} $B $$ $${A}');
});

test('what a variable holds is neither scanned again nor read as YAML', (t) => {
  const yaml = withEntries('{ id: spiffe://example.org/w, selectors: ["unix:uid:1"], hint: "${A}" }');
  t.is(parseConfig(yaml, 'x', { A: '${B}, priority: 7', B: 'b' }).entries[0]?.hint, '${B}, priority: 7');
  t.deepEqual(problemsOf('trustDomain: example.org\nentries: "${A}"\n', { A: '[]' }), [
    { path: 'entries', found: '"[]"', allowed: 'a list of entries (an empty one is [])' },
  ]);
});

test('a variable gives text, never a number or a flag', (t) => {
  const yaml = 'trustDomain: example.org\nlimits: { calls: "${A}" }\nattestation: { unix: { path: "${B}" } }\n';
  t.deepEqual(problemsOf(yaml, { A: '5', B: 'true' }), [
    { path: 'limits.calls', found: '"5"', allowed: 'a whole number from 1 to 65536' },
    { path: 'attestation.unix.path', found: '"true"', allowed: 'true or false' },
  ]);
});

test('a variable that is not set is one problem that names it', (t) => {
  const allowed = 'an environment variable that is set; HOME_DOMAIN is not';
  t.deepEqual(problemsOf('trustDomain: "${HOME_DOMAIN}"\n'), [{ path: 'trustDomain', found: '"${HOME_DOMAIN}"', allowed }]);
  t.deepEqual(problemsOf('trustDomain: "${HOME_DOMAIN}"\n', { HOME_DOMAIN: undefined }).length, 1);
});

test('members that every object has are no variables', (t) => {
  t.is(problemsOf('trustDomain: "${constructor}"\n')[0]?.allowed, 'an environment variable that is set; constructor is not');
});

test('an empty variable is set', (t) => {
  t.regex(problemsOf('trustDomain: "${A}"\n', { A: '' })[0]?.allowed ?? '', /the trust domain name is missing$/);
});

for (const reference of ['${}', '${A-B}', '${A:-x}', '${1A}', '${ A }', '${A']) {
  test(`${reference} is no variable, and no text by accident`, (t) => {
    const allowed = '${NAME} with a name of letters, digits and "_", or $${ for a literal ${';
    const problem = { path: 'trustDomain', found: JSON.stringify(reference), allowed };
    t.deepEqual(problemsOf(`trustDomain: '${reference}'\n`, { A: 'example.org' }), [problem]);
  });
}

test('a variable in a key is not filled in', (t) => {
  t.is(problemsOf('"${A}": example.org\ntrustDomain: example.org\n', { A: 'log' })[0]?.path, '["${A}"]');
});

test('a variable that is used often cannot fill the memory', (t) => {
  const yaml = `trustDomain: "${'${A}'.repeat(100)}"\n`;
  t.regex(problemsOf(yaml, { A: 'x'.repeat(100_000) })[0]?.found ?? '', /^more than 4194304 characters, /);
});

for (const key of ['__proto__', 'constructor', 'prototype']) {
  test(`the key ${key} is refused at any level`, (t) => {
    const yaml = `trustDomain: example.org\n${key}: { x: 1 }\nlimits: { ${key}: 1 }\n`;
    t.deepEqual(problemsOf(yaml), [
      { path: key, found: `"${key}"`, allowed: 'no such key' },
      { path: `limits.${key}`, found: `"${key}"`, allowed: 'no such key' },
    ]);
  });
}

test('a syntax error keeps its cause', (t) => {
  t.is((errorOf(() => parseConfig('[', 'signet.yaml', {})).cause as Error).name, 'YAMLException');
});
