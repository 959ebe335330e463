import test from 'ava';
import { parseConfig } from '../../src/config/load.ts';
import { LIMIT_RANGES, TTL_RANGES, type Config } from '../../src/config/config.ts';
import { formatDuration } from '../../src/config/duration.ts';
import { entry, problemsOf, withEntries } from './refusals.ts';

const BASE = 'trustDomain: example.org\n';

function read(yaml: string): Config {
  return parseConfig(yaml, 'signet.yaml', {});
}

/** One refusal: YAML after the trust domain, and the one problem it must be. */
function refuses(title: string, yaml: string, path: string, found: string, allowed: string, hint?: string): void {
  test(title, (t) => {
    t.deepEqual(problemsOf(BASE + yaml), [hint === undefined ? { path, found, allowed } : { path, found, allowed, hint }]);
  });
}

const DOMAIN = 'a trust domain name such as example.org';
const LETTERS = 'a trust domain name has only lower-case letters a-z, digits, ".", "-" and "_"';
const ID = 'a SPIFFE ID such as spiffe://example.org/ns/default/sa/web';
const TTL = 'such as 250ms, 90s, 30m, 1h30m or 7d';

test('ID-21: a trust domain has to be named', (t) => {
  t.deepEqual(problemsOf('log: { level: info }'), [{ path: 'trustDomain', found: 'nothing', allowed: DOMAIN }]);
});

test(
  'a trust domain may be written as its SPIFFE ID',
  (t) => t.is(read('trustDomain: spiffe://example.org').trustDomain as string, 'example.org'),
);

for (const text of ['Example.org', 'spiffe://example.org/', 'https://example.org', 'a:1']) {
  test(`the trust domain ${text} is refused`, (t) => {
    t.deepEqual(
      problemsOf(`trustDomain: ${text}`),
      [{ path: 'trustDomain', found: JSON.stringify(text), allowed: `${DOMAIN}: ${LETTERS}` }],
    );
  });
}

test('null is not the same as left out', (t) => {
  t.deepEqual(problemsOf('trustDomain:\nlog:\nentries:\n').map(({ path, found }) => [path, found]), [
    ['trustDomain', 'null'],
    ['log', 'null'],
    ['entries', 'null'],
  ]);
});

const SOCKET = 'an absolute path of at most 98 bytes';
test('a socket path of 98 bytes is allowed', (t) => t.is(read(`${BASE}socketPath: /${'s'.repeat(97)}`).socketPath.length, 98));
refuses(
  'a socket path of 99 bytes is refused',
  `socketPath: /${'s'.repeat(98)}`,
  'socketPath',
  `"/${'s'.repeat(59)}"…`,
  `${SOCKET}; this one has 99`,
);
refuses(
  'a socket path is counted in bytes',
  `socketPath: /${'é'.repeat(49)}`,
  'socketPath',
  `"/${'é'.repeat(49)}"`,
  `${SOCKET}; this one has 99`,
);
refuses('a relative socket path is refused', 'socketPath: api.sock', 'socketPath', '"api.sock"', SOCKET);
refuses('an abstract socket is refused', 'socketPath: "@signet"', 'socketPath', '"@signet"', SOCKET);
for (const path of ['/run/../api.sock', '/run//api.sock', '/run/./api.sock', '/run/']) {
  refuses(
    `the socket path ${path} is refused`,
    `socketPath: ${path}`,
    'socketPath',
    `"${path}"`,
    `${SOCKET} without empty, "." and ".." names, and without "/" at its end`,
  );
}
refuses(
  'a socket path with a zero byte is refused',
  'socketPath: "/run/a\\0b"',
  'socketPath',
  '"/run/a\\u0000b"',
  `${SOCKET} without control characters`,
);
refuses(
  'a relative data directory is refused',
  'dataDir: ./data',
  'dataDir',
  '"./data"',
  'an absolute path of at most 3840 bytes',
);

const TIMES: readonly (readonly [string, { min: number; max: number }, string])[] = [
  ['x509: { ttl: @ }', TTL_RANGES.x509, 'x509.ttl'],
  ['jwt: { ttl: @ }', TTL_RANGES.jwt, 'jwt.ttl'],
  ['authority: { ttl: @ }', TTL_RANGES.authority, 'authority.ttl'],
  ['withdrawalDelay: @', TTL_RANGES.withdrawalDelay, 'withdrawalDelay'],
  ['limits: { preludeTimeout: @ }', LIMIT_RANGES.preludeTimeoutMs, 'limits.preludeTimeout'],
  ['limits: { requestTimeout: @ }', LIMIT_RANGES.requestTimeoutMs, 'limits.requestTimeout'],
  ['limits: { stalledTimeout: @ }', LIMIT_RANGES.stalledTimeoutMs, 'limits.stalledTimeout'],
  ['limits: { readyTimeout: @ }', LIMIT_RANGES.readyTimeoutMs, 'limits.readyTimeout'],
];

for (const [yaml, { min, max }, path] of TIMES) {
  const allowed = `a duration from ${formatDuration(min)} to ${formatDuration(max)}, ${TTL}`;
  test(`${path} allows both of its bounds`, (t) => {
    for (const ms of [min, max]) {
      const found = problemsOf(BASE + yaml.replace('@', formatDuration(ms))).filter((problem) => problem.allowed === allowed);
      t.deepEqual(found, []);
    }
  });
  refuses(
    `${path} is refused above its bound`,
    yaml.replace('@', formatDuration(max + 1)),
    path,
    `"${formatDuration(max + 1)}"`,
    allowed,
  );
  if (min > 0) refuses(
    `${path} is refused below its bound`,
    yaml.replace('@', formatDuration(min - 1)),
    path,
    `"${formatDuration(min - 1)}"`,
    allowed,
  );
  refuses(`${path} is refused without a unit`, yaml.replace('@', '3600'), path, '3600', allowed, 'add a unit: ms, s, m, h or d');
}

test('the bounds of lifetimes are those of the documentation', (t) => {
  const bounds = Object.values(TTL_RANGES).flatMap(({ min, max }) => [formatDuration(min), formatDuration(max)]);
  t.deepEqual(bounds, ['10s', '365d', '10s', '24h', '1m', '3650d', '0s', '1h', '100ms', '1m', '0s', '1m', '1s', '1m']);
});

const COUNTS = Object.entries(LIMIT_RANGES).filter(([name]) => !name.endsWith('Ms'));

for (const [name, { min, max }] of COUNTS) {
  const allowed = `a whole number from ${min} to ${max}`;
  test(`limits.${name} allows both of its bounds`, (t) => {
    for (const count of [min, max]) t.is(Reflect.get(read(`${BASE}limits: { ${name}: ${count} }`).limits, name), count);
  });
  refuses(
    `limits.${name} is refused above its bound`,
    `limits: { ${name}: ${max + 1} }`,
    `limits.${name}`,
    String(max + 1),
    allowed,
  );
  refuses(
    `limits.${name} is refused below its bound`,
    `limits: { ${name}: ${min - 1} }`,
    `limits.${name}`,
    String(min - 1),
    allowed,
  );
}

const NO_COUNTS = [
  ['1.5', '1.5'],
  ['.inf', 'Infinity'],
  ['.nan', 'NaN'],
  ['"5"', '"5"'],
  ['5s', '"5s"'],
  ['true', 'true'],
] as const;

for (const [text, found] of NO_COUNTS) {
  refuses(
    `limits.calls: ${text} is refused`,
    `limits: { calls: ${text} }`,
    'limits.calls',
    found,
    'a whole number from 1 to 65536',
  );
}

refuses(
  'an unknown key type is refused',
  'x509: { keyType: rsa2047 }',
  'x509.keyType',
  '"rsa2047"',
  'one of ec-p256, ec-p384, rsa-2048',
  'did you mean "rsa-2048"?',
);
refuses(
  'an Ed25519 key is refused (JS-05)',
  'x509: { keyType: ed25519 }',
  'x509.keyType',
  '"ed25519"',
  'one of ec-p256, ec-p384, rsa-2048',
);
refuses('an unknown authority is refused', 'authority: { type: acme }', 'authority.type', '"acme"', 'one of embedded, files, vault, step-ca, spire, cert-manager');
refuses(
  'an unknown log level is refused',
  'log: { level: warning }',
  'log.level',
  '"warning"',
  'one of debug, info, warn, error, silent',
);
refuses('a flag is true or false', 'attestation: { unix: { path: yes } }', 'attestation.unix.path', '"yes"', 'true or false');

const ISSUER = 'an https URL such as https://issuer.example.org';
for (const issuer of ['https://issuer.example.org', 'https://issuer.example.org:8443/a/b/', 'https://[::1]/x']) {
  test(`the issuer ${issuer} is kept as written`, (t) => t.is(read(`${BASE}jwt: { issuer: "${issuer}" }`).jwt.issuer, issuer));
}
for (const [issuer, rule] of [
  ['http://issuer.example.org', ''],
  ['HTTPS://issuer.example.org', ''],
  ['issuer.example.org', ''],
  ['https:issuer.example.org', ''],
  ['https:///issuer.example.org', ''],
  ['https://issuer.example.org/a b', ''],
  ['https://issuer.example.org:99999', ''],
  ['https://issuer.example.org/?x=1', ': without query and fragment'],
  ['https://issuer.example.org/#x', ': without query and fragment'],
  ['https://issuer.example.org?', ': without query and fragment'],
  ['https://u:p@issuer.example.org', ': without user name and password'],
] as const) {
  refuses(`the issuer ${issuer} is refused`, `jwt: { issuer: "${issuer}" }`, 'jwt.issuer', `"${issuer}"`, ISSUER + rule);
}

refuses(
  'an unknown key is refused with the nearest known one',
  'socketpath: /run/x',
  'socketpath',
  '"socketpath"',
  'a key among trustDomain, socketPath, dataDir, privateDir, clusterName, clusterDomain, onSuperseded, kubernetes, x509, jwt, authority, attestation, registration, trust, entries, limits, withdrawalDelay, log, telemetry, audit, admin',
  'did you mean "socketPath"?',
);
refuses(
  'an unknown key is refused at depth',
  'attestation: { unix: { paht: true } }',
  'attestation.unix.paht',
  '"paht"',
  'a key among path',
  'did you mean "path"?',
);
refuses(
  'an unknown key near to none is refused without a guess',
  'log: { colour: true }',
  'log.colour',
  '"colour"',
  'a key among level',
);
refuses('a list is no mapping', 'x509: [1h]', 'x509', '["1h"]', 'a mapping with keys among ttl, keyType');

test('every unknown key is reported, not only the first', (t) => {
  t.deepEqual(problemsOf(`${BASE}log: { a: 1, b: 2, "c d": 3 }`).map(({ path }) => path), ['log.a', 'log.b', 'log["c d"]']);
});

function refusesEntry(title: string, yaml: string, path: string, found: string, allowed: string, hint?: string): void {
  test(title, (t) => {
    const problem = { path: `entries[0]${path}`, found, allowed };
    t.deepEqual(problemsOf(withEntries(yaml)), [hint === undefined ? problem : { ...problem, hint }]);
  });
}

const SELECTOR = 'a selector such as unix:uid:1000';
const DNS = 'a DNS name such as web.example.org or *.example.org';
const LABEL = `${DNS}: each label has 1 to 63 letters, digits and inner hyphens`;

test('an entry is read with all that it says', (t) => {
  const more = 'x509Ttl: 30m, jwtTtl: 1m, dnsNames: [web, "*.web.example.org"], hint: web, priority: 10';
  t.deepEqual(read(withEntries(entry(more))).entries as readonly object[], [
    {
      id: 'spiffe://example.org/web',
      selectors: ['unix:uid:1000'],
      x509TtlMs: 1_800_000,
      jwtTtlMs: 60_000,
      dnsNames: ['web', '*.web.example.org'],
      hint: 'web',
      priority: 10,
    },
  ]);
});

test('an entry that says the least has the defaults', (t) => {
  const [first] = read(withEntries(entry())).entries;
  t.deepEqual(
    { ...first, id: '' },
    { id: '', selectors: ['unix:uid:1000'], x509TtlMs: undefined, jwtTtlMs: undefined, dnsNames: [], hint: '', priority: 0 },
  );
});

refusesEntry('an entry without an ID is refused', '{ selectors: ["unix:uid:1"] }', '.id', 'nothing', ID);
refusesEntry(
  'an entry with a malformed ID is refused',
  '{ id: spiffe://example.org/a//b, selectors: ["unix:uid:1"] }',
  '.id',
  '"spiffe://example.org/a//b"',
  `${ID}: a path has no empty segment and does not end with "/"`,
);
refusesEntry(
  'XS-04: an ID without a path is refused',
  '{ id: spiffe://example.org, selectors: ["unix:uid:1"] }',
  '.id',
  '"spiffe://example.org"',
  `${ID}: a workload's ID has a path after the trust domain`,
);
refusesEntry(
  'an entry that is no mapping is refused',
  'web',
  '',
  '"web"',
  'a mapping with keys among id, selectors, x509Ttl, jwtTtl, dnsNames, hint, priority',
);
refusesEntry(
  'an unknown key of an entry is refused',
  entry('dnsName: [a]'),
  '.dnsName',
  '"dnsName"',
  'a key among id, selectors, x509Ttl, jwtTtl, dnsNames, hint, priority',
  'did you mean "dnsNames"?',
);
refusesEntry(
  'selectors that are no list are refused',
  entry('', 'unix:uid:1'),
  '.selectors',
  '"unix:uid:1"',
  'a list of selectors (an empty one is [])',
);
refusesEntry(
  'a selector that is no text is refused',
  entry('', '["unix:uid:1", { unix: 1 }]'),
  '.selectors[1]',
  '{"unix":1}',
  SELECTOR,
);
refusesEntry(
  'a selector of an unknown type is refused',
  entry('', '["docker:label:a"]'),
  '.selectors[0]',
  '"docker:label:a"',
  `${SELECTOR}: the type is one of unix, k8s`,
);
refusesEntry(
  'a selector of a type that every object has is refused',
  entry('', '["constructor:a:b"]'),
  '.selectors[0]',
  '"constructor:a:b"',
  `${SELECTOR}: the type is one of unix, k8s`,
);
refusesEntry(
  'a selector without a number is refused',
  entry('', '["unix:uid:root"]'),
  '.selectors[0]',
  '"unix:uid:root"',
  `${SELECTOR}: its value is a decimal number of at most 4294967294`,
);
refusesEntry(
  'an x509Ttl without a unit is refused',
  entry('x509Ttl: 90'),
  '.x509Ttl',
  '90',
  `a duration from 10s to 365d, ${TTL}`,
  'add a unit: ms, s, m, h or d',
);
refusesEntry('a jwtTtl out of range is refused', entry('jwtTtl: 25h'), '.jwtTtl', '"25h"', `a duration from 10s to 24h, ${TTL}`);
refusesEntry(
  'a priority that is not whole is refused',
  entry('priority: 0.5'),
  '.priority',
  '0.5',
  'a whole number from -2147483648 to 2147483647',
);
refusesEntry(
  'a DNS name in upper case is refused',
  entry('dnsNames: [Web]'),
  '.dnsNames[0]',
  '"Web"',
  `${DNS}: in lower case`,
  'write "web"',
);
refusesEntry(
  'a DNS name of 254 characters is refused',
  entry(`dnsNames: [${'a.'.repeat(126)}aa]`),
  '.dnsNames[0]',
  `"${'a.'.repeat(30)}"…`,
  `${DNS}: at most 253 characters`,
);
refusesEntry(
  'an IP address is no DNS name',
  entry('dnsNames: ["10.0.0.1"]'),
  '.dnsNames[0]',
  '"10.0.0.1"',
  `${DNS}: the last label is not a number`,
);
for (const name of ['', '.', 'a..b', 'a.', '-a', 'a-', 'a_b', 'a b', 'é', 'a.*.b', '*', '**.a', 'a*.b', 'x'.repeat(64)]) {
  const shown = name.length > 60 ? `"${name.slice(0, 60)}"…` : `"${name}"`;
  refusesEntry(`the DNS name ${shown} is refused`, entry(`dnsNames: ["${name}"]`), '.dnsNames[0]', shown, LABEL);
}
test('DNS names of the greatest length are allowed', (t) => {
  const names = ['a'.repeat(63), `${'a.'.repeat(126)}a`, '1', 'a--b'];
  t.deepEqual(read(withEntries(entry(`dnsNames: [${names.map((name) => `"${name}"`).join(', ')}]`))).entries[0]?.dnsNames, names);
});

test('WA-75: a hint of 1024 bytes is allowed', (t) => {
  t.is(read(withEntries(entry(`hint: "${'é'.repeat(512)}"`))).entries[0]?.hint.length, 512);
});
refusesEntry(
  'WA-75: a hint of 1025 bytes is refused',
  entry(`hint: "${'é'.repeat(512)}x"`),
  '.hint',
  `"${'é'.repeat(60)}"…`,
  'a text of at most 1024 bytes; this one has 1025',
);
for (const [written, shown] of [['a\\nb', 'a\\nb'], ['\\x7f', '\\u007f'], ['\\x9b', '\\u009b'], ['\\0', '\\u0000']] as const) {
  refusesEntry(
    `the hint "${written}" is refused`,
    entry(`hint: "${written}"`),
    '.hint',
    `"${shown}"`,
    'a text of at most 1024 bytes without control characters and lone surrogates',
  );
}
