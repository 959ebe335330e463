import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import test from 'ava';
import { CompactSign, SignJWT, UnsecuredJWT } from 'jose';
import { jwtAuthority } from '../../src/authority/keys.ts';
import { SignetError, type ErrorCode } from '../../src/errors.ts';
import type { JwtAuthority, TrustBundle } from '../../src/spiffe/bundle.ts';
import { parseTrustDomain, type TrustDomain } from '../../src/spiffe/id.ts';
import { JWT_ALGORITHMS, type JwtAlgorithm } from '../../src/spiffe/jwt.ts';
import { validateJwt, VerifiedTokens } from '../../src/trust/jwt-validation.ts';

const NOW = Date.UTC(2030, 0, 1);
const SECONDS = NOW / 1000;
const CLAIMS = { sub: 'spiffe://example.org/a', aud: ['x', 'y'], exp: SECONDS + 300, iat: SECONDS, role: 'admin' };

const keyOf: Record<string, { publicKey: KeyObject; privateKey: KeyObject }> = {
  RSA: generateKeyPairSync('rsa', { modulusLength: 2048 }),
  ES256: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  ES384: generateKeyPairSync('ec', { namedCurve: 'P-384' }),
  ES512: generateKeyPairSync('ec', { namedCurve: 'P-521' }),
  OTHER: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
};

function key(name: string): { publicKey: KeyObject; privateKey: KeyObject } {
  const pair = keyOf[name] ?? keyOf['RSA'];
  if (pair === undefined) throw new Error(name);
  return pair;
}

function bundles(...held: (readonly [name: string, keys: readonly JwtAuthority[]])[]): (trustDomain: TrustDomain) => TrustBundle | undefined {
  const all = new Map(held.map(([name, jwtAuthorities]) => [name, { trustDomain: parseTrustDomain(name), x509Authorities: [], jwtAuthorities }]));
  return (name) => all.get(name);
}

const own = ['ES256', 'ES384', 'ES512', 'RSA'].map((name) => jwtAuthority(key(name).publicKey));
const trust = bundles(['example.org', own]);

function sign(claims: object = CLAIMS, alg: JwtAlgorithm = 'ES256', header: object = {}, signer = alg): Promise<string> {
  const pair = key(signer.startsWith('ES') || signer === ('OTHER' as string) ? signer : 'RSA');
  return new SignJWT({ ...claims }).setProtectedHeader({ alg, kid: jwtAuthority(pair.publicKey).kid, typ: 'JWT', ...header }).sign(pair.privateKey);
}

function refuses(t: import('ava').ExecutionContext, token: string, code: ErrorCode, message: RegExp, audience = 'x', now = NOW): void {
  t.throws(() => validateJwt(token, audience, trust, now), { instanceOf: SignetError, code, message });
}

for (const alg of JWT_ALGORITHMS) {
  test(`JS-06, JS-23: ${alg} by another library is valid, and one flipped bit is not`, async (t) => {
    const token = await sign(CLAIMS, alg);
    const valid = validateJwt(token, 'y', trust, NOW);
    t.is(String(valid.id), 'spiffe://example.org/a');
    t.like(valid.claims, { role: 'admin', exp: SECONDS + 300 });
    const dots = [token.indexOf('.'), token.lastIndexOf('.')];
    for (const at of [(dots[0] ?? 0) + 10, (dots[1] ?? 0) + 10]) {
      const flipped = token.slice(0, at) + (token[at] === 'A' ? 'B' : 'A') + token.slice(at + 1);
      t.throws(() => validateJwt(flipped, 'y', trust, NOW), { instanceOf: SignetError });
    }
  });
}

test('JS-08: a token without kid is valid when any key of the domain has signed it', async (t) => {
  const token = await new SignJWT({ ...CLAIMS }).setProtectedHeader({ alg: 'ES384' }).sign(key('ES384').privateKey);
  t.notThrows(() => validateJwt(token, 'x', trust, NOW));
});

test('JS-16: the audience is compared exactly', async (t) => {
  const token = await sign();
  for (const audience of ['X', 'xy', 'x/', '', 'z']) refuses(t, token, 'invalid_token', /^JS-16/, audience);
});

test('JS-21: a token is valid until its end and five seconds more', async (t) => {
  const token = await sign();
  t.notThrows(() => validateJwt(token, 'x', trust, NOW + 304_000));
  refuses(t, token, 'expired_token', /^JS-21: the token has expired$/, 'x', NOW + 305_000);
});

test('JS-35: nbf in the future is refused, iat in the future is not', async (t) => {
  refuses(t, await sign({ ...CLAIMS, nbf: SECONDS + 300 }), 'invalid_token', /^JS-35/);
  const token = await sign({ ...CLAIMS, iat: SECONDS + 300 });
  t.notThrows(() => validateJwt(token, 'x', trust, NOW));
});

test('JS-31: the same token validates twice', async (t) => {
  const token = await sign({ ...CLAIMS, jti: '1' });
  validateJwt(token, 'x', trust, NOW);
  t.notThrows(() => validateJwt(token, 'x', trust, NOW));
});

test('JS-04: an unsecured token is refused', (t) => {
  refuses(t, new UnsecuredJWT({ ...CLAIMS }).encode(), 'invalid_token', /^JS-/);
});

test('JS-07: HS256 with the public key as its secret is refused before any key is used', async (t) => {
  const secret = key('RSA').publicKey.export({ format: 'pem', type: 'spki' });
  const token = await new CompactSign(Buffer.from(JSON.stringify(CLAIMS))).setProtectedHeader({ alg: 'HS256' }).sign(Buffer.from(secret));
  refuses(t, token, 'invalid_token', /^JS-06/);
});

test('JS-07: the algorithm must fit the key that kid names', async (t) => {
  const token = await new SignJWT({ ...CLAIMS }).setProtectedHeader({ alg: 'ES256', kid: jwtAuthority(key('RSA').publicKey).kid }).sign(key('OTHER').privateKey);
  refuses(t, token, 'invalid_token', /^JS-23/);
});

test('JS-29: another key under the same kid is refused, and so is one that is embedded', async (t) => {
  const kid = jwtAuthority(key('ES256').publicKey).kid;
  const forged = await new SignJWT({ ...CLAIMS }).setProtectedHeader({ alg: 'ES256', kid }).sign(key('OTHER').privateKey);
  refuses(t, forged, 'invalid_token', /^JS-23/);
  const jwk = key('OTHER').publicKey.export({ format: 'jwk' }) as { kty: string; crv: string; x: string; y: string };
  const embedded = await new SignJWT({ ...CLAIMS }).setProtectedHeader({ alg: 'ES256', kid, jwk }).sign(key('OTHER').privateKey);
  refuses(t, embedded, 'invalid_token', /^JS-03/);
});

test('ID-26, WA-57: only the bundle of the own trust domain counts', async (t) => {
  const partner = bundles(['example.org', own], ['partner.test', [jwtAuthority(key('OTHER').publicKey)]]);
  const foreign = await new SignJWT({ ...CLAIMS }).setProtectedHeader({ alg: 'ES256' }).sign(key('OTHER').privateKey);
  t.throws(() => validateJwt(foreign, 'x', partner, NOW), { message: /^JS-23/ });
  const theirs = await new SignJWT({ ...CLAIMS, sub: 'spiffe://partner.test/a' }).setProtectedHeader({ alg: 'ES256' }).sign(key('OTHER').privateKey);
  t.is(String(validateJwt(theirs, 'x', partner, NOW).id), 'spiffe://partner.test/a');
  refuses(t, theirs, 'invalid_token', /^ID-26/);
});

test('JS-30: a domain without JWT keys has no valid tokens', async (t) => {
  const token = await sign();
  t.throws(() => validateJwt(token, 'x', bundles(['example.org', []]), NOW), { message: /^JS-23/ });
});

test('JS-21, JS-16: of a token that was verified before, life and audience are looked at again', async (t) => {
  const verified = new VerifiedTokens();
  const token = await sign();
  const valid = validateJwt(token, 'x', trust, NOW, verified);
  t.is(validateJwt(token, 'x', trust, NOW, verified).claims, valid.claims, 'it was remembered');
  t.throws(() => validateJwt(token, 'other', trust, NOW, verified), { message: /^JS-16/ });
  t.throws(() => validateJwt(token, 'x', trust, NOW + 3_600_000, verified), { message: /^JS-21/ });
});

test('JS-23: a token is verified anew when the bundle is another one, and refused when its key is gone', async (t) => {
  const verified = new VerifiedTokens();
  const token = await sign();
  validateJwt(token, 'x', trust, NOW, verified);
  t.throws(() => validateJwt(token, 'x', bundles(['example.org', []]), NOW, verified), { message: /^JS-23/ });
  t.notThrows(() => validateJwt(token, 'x', trust, NOW, verified));
});

test('what was refused is not remembered, and of what was verified no more than 512', async (t) => {
  const verified = new VerifiedTokens();
  const token = await sign();
  const forged = `${token.slice(0, -4)}AAAA`;
  t.throws(() => validateJwt(forged, 'x', trust, NOW, verified), { message: /^JS-23/ });
  t.is(verified.find(forged, trust), undefined);
  validateJwt(token, 'x', trust, NOW, verified);
  const jwt = verified.find(token, trust);
  t.truthy(jwt);
  for (let other = 0; other < 511; other += 1) verified.add(`other-${other}`, jwt!, trust(parseTrustDomain('example.org'))!);
  t.truthy(verified.find(token, trust));
  verified.add('one more', jwt!, trust(parseTrustDomain('example.org'))!);
  t.is(verified.find(token, trust), undefined);
});
