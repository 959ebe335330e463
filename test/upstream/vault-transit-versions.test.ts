import test from 'ava';
import { jwtAuthority, newKeyPair } from '../../src/authority/keys.ts';
import { endOfTokens, followVersions, readTransitKey, signingVersion, type KnownVersion, type ToldVersion } from '../../src/upstream/vault/transit-versions.ts';

const NOW = Date.UTC(2030, 0, 1);
const HOUR = 3_600_000;
const OVERLAP = 60_000;
const keys = await Promise.all([1, 2, 3, 4].map(() => newKeyPair('ec-p256')));

/** Version `version` of a key, made at `createdAt`. */
function told(version: number, createdAt: number, pair = keys[version - 1]!): ToldVersion {
  return { version, publicKey: pair.publicKey, createdAt };
}

function follow(known: readonly KnownVersion[], versions: readonly ToldVersion[], now: number): readonly KnownVersion[] {
  return followVersions(known, versions, jwtAuthority, now);
}

const signs = (known: readonly KnownVersion[], now: number, lowest = 0): number | undefined => signingVersion(known, lowest, OVERLAP, now)?.version;

test('at a first start the versions are as old as Vault says, so that the newest signs at once if it is old enough', (t) => {
  const known = follow([], [told(1, NOW - 2 * HOUR), told(2, NOW - HOUR), told(3, NOW - 1_000)], NOW);
  t.is(signs(known, NOW), 2);
  t.is(signs(known, NOW - 1_000 + OVERLAP), 3);
});

test('a version that was made in the future by the clock of Vault is as old as what we have seen of it', (t) => {
  const known = follow([], [told(1, NOW + HOUR)], NOW);
  t.is(known[0]?.since, NOW);
});

test('a version that comes later is not older than we have known it, whatever Vault says', (t) => {
  const known = follow(follow([], [told(1, NOW - HOUR)], NOW), [told(1, NOW - HOUR), told(2, NOW - HOUR)], NOW + 10);
  t.is(signs(known, NOW + 10), 1);
  t.is(signs(known, NOW + 10 + OVERLAP), 2);
});

test('of versions that nobody can have yet the first one signs; one that may not sign never does', (t) => {
  const known = follow([], [told(1, NOW), told(2, NOW)], NOW);
  t.is(signs(known, NOW), 1);
  t.is(signs(known, NOW, 2), 2);
  t.is(signs(known, NOW, 3), undefined);
});

test('a trimmed version is kept until its last token has ended', (t) => {
  const before = follow([], [told(1, NOW - HOUR)], NOW);
  const known = follow(before, [told(2, NOW)], NOW);
  const [first, second] = known;
  t.is(first?.goneAt, NOW);
  t.is(endOfTokens(first!, known, HOUR, OVERLAP), NOW + OVERLAP + HOUR);
  t.is(endOfTokens(second!, known, HOUR, OVERLAP), Infinity);
  t.is(signs(known, NOW), 2);
});

test('a version that was followed long ago has no live tokens, although Vault still names it', (t) => {
  const known = follow([], [told(1, NOW - 10 * HOUR), told(2, NOW - 5 * HOUR), told(3, NOW - HOUR / 2)], NOW);
  t.deepEqual(known.map((one) => NOW < endOfTokens(one, known, HOUR, OVERLAP)), [false, true, true]);
});

test('one version number with another key is another key', (t) => {
  const before = follow([], [told(1, NOW - HOUR)], NOW);
  const known = follow(before, [told(1, NOW, keys[3])], NOW);
  t.is(known.length, 2);
  t.is(signingVersion(known, 0, OVERLAP, NOW)?.authority.kid, jwtAuthority(keys[3]!.publicKey).kid);
});

const good = { public_key: keys[0]!.publicKey.export({ format: 'pem', type: 'spki' }), creation_time: '2030-01-01T00:00:00Z' };
const key = (more: object): Record<string, unknown> => ({ type: 'ecdsa-p256', keys: { '1': good }, min_encryption_version: 0, ...more });

for (const [what, data] of [
  ['no versions', key({ keys: {} })],
  ['too many versions', key({ keys: Object.fromEntries(Array.from({ length: 1_025 }, (_, index) => [index + 1, good])) })],
  ['a version that is no number', key({ keys: { one: good } })],
  ['a version without a key', key({ keys: { '1': {} } })],
  ['a version that is not a mapping', key({ keys: { '1': 1 } })],
  ['a key that is none', key({ keys: { '1': { public_key: 'garbage' } } })],
] as const) {
  test(`an answer with ${what} is refused as a whole`, (t) => {
    t.throws(() => readTransitKey(data, 'transit/keys/k'), { code: 'authority_unavailable' });
  });
}

test('a derived key, whose tokens nobody could verify, is refused', (t) => {
  t.throws(() => readTransitKey(key({ derived: true }), 'transit/keys/k'), { code: 'state_refused', message: /type=ecdsa-p256/ });
});
