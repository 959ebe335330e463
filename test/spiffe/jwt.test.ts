import test from 'ava';
import { SignetError } from '../../src/errors.ts';
import { readJwt } from '../../src/spiffe/jwt.ts';

const HEADER = { alg: 'ES256', kid: 'k', typ: 'JWT' };
const CLAIMS = { sub: 'spiffe://example.org/a', aud: ['x'], exp: 2_000_000_000 };

function encode(value: unknown): string {
  return Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');
}

function token(header: unknown = HEADER, claims: unknown = CLAIMS, signature = 'AAAA'): string {
  return `${encode(header)}.${encode(claims)}.${signature}`;
}

test('a JWT-SVID is read', (t) => {
  t.like(readJwt(token()), { algorithm: 'ES256', kid: 'k', audience: ['x'], expires: 2_000_000_000, notBefore: undefined });
});

for (const typ of ['JWT', 'JOSE', undefined]) {
  test(`JS-09, JS-10: typ ${typ} is accepted`, (t) => {
    t.notThrows(() => readJwt(token({ ...HEADER, typ })));
  });
}

test('JS-08: kid may be missing; JS-16: aud may be one text; AM-22: exp may have a fraction', (t) => {
  t.is(readJwt(token({ alg: 'RS256' })).kid, undefined);
  t.deepEqual(readJwt(token(HEADER, { ...CLAIMS, aud: 'x' })).audience, ['x']);
  t.is(readJwt(token(HEADER, { ...CLAIMS, exp: 1.5 })).expires, 1.5);
});

const REFUSED: readonly (readonly [rule: string, what: string, text: string])[] = [
  ['JS-01', 'two parts', 'a.b'],
  ['JS-01', 'four parts', `${token()}.AAAA`],
  ['JS-01', 'nothing', ''],
  ['JS-02', 'JSON serialization', JSON.stringify({ payload: encode(CLAIMS), signatures: [] })],
  ['JS-04', 'a JWE of five parts', 'a.b.c.d.e'],
  ['JS-23', 'padding', `${encode(HEADER)}=.${encode(CLAIMS)}.AAAA`],
  ['JS-23', 'an empty signature', `${encode(HEADER)}.${encode(CLAIMS)}.`],
  ['JS-23', 'CR/LF in the payload', `${encode(HEADER)}.${encode(CLAIMS).slice(0, 4)}\r\n${encode(CLAIMS).slice(4)}.AAAA`],
  ['JS-23', 'a line feed at the end', `${token()}\n`],
  ['JS-23', 'spare bits in the signature', token(HEADER, CLAIMS, 'AAB')],
  ['JS-23', 'a header that is no JSON', `${encode('{')}.${encode(CLAIMS)}.AAAA`],
  ['JS-23', 'a header that is a list', token([])],
  ['JS-23', 'a payload that is null', token(HEADER, null)],
  ['JS-23', 'a payload that is not UTF-8', `${encode(HEADER)}.${Buffer.from([0x7b, 0xff, 0x7d]).toString('base64url')}.AAAA`],
  ...['none', 'None', 'HS256', 'HS384', 'HS512', 'EdDSA', 'Ed25519', 'ES256K', 'ML-DSA-44', 'es256', 256, undefined].map(
    (alg) => ['JS-06', `alg ${alg}`, token({ ...HEADER, alg })] as const,
  ),
  ...['jku', 'jwk', 'x5u', 'x5c', 'crit', 'b64', 'cty', 'foo', '__proto__'].map(
    (name) => ['JS-03', `the header member ${name}`, token(`{"alg":"ES256","${name}":"a"}`)] as const,
  ),
  ...['wit+jwt', 'at+jwt', 'jwt', 'application/jwt', '', 1, null].map((typ) => ['JS-10', `typ ${JSON.stringify(typ)}`, token({ ...HEADER, typ })] as const),
  ...[1, '', null].map((kid) => ['JS-34', `kid ${JSON.stringify(kid)}`, token({ ...HEADER, kid })] as const),
  ...[undefined, '', 1, 'alice', 'spiffe://example.org', 'spiffe://example.org/a/', 'https://example.org/a'].map(
    (sub) => ['JS-13', `sub ${JSON.stringify(sub)}`, token(HEADER, { ...CLAIMS, sub })] as const,
  ),
  ...[undefined, [], '', null, {}, [''], [1], ['a', 2]].map((aud) => ['JS-15', `aud ${JSON.stringify(aud)}`, token(HEADER, { ...CLAIMS, aud })] as const),
  ...[undefined, null, '1893456000', {}].map((exp) => ['JS-20', `exp ${JSON.stringify(exp)}`, token(HEADER, { ...CLAIMS, exp })] as const),
  ['JS-35', 'an nbf that is a text', token(HEADER, { ...CLAIMS, nbf: '1' })],
];

for (const [rule, what, text] of REFUSED) {
  test(`${rule}: ${what} is refused`, (t) => {
    const error = t.throws(() => readJwt(text), { instanceOf: SignetError, code: 'invalid_token' });
    for (const part of text.split('.').filter((each) => each.length > 6)) t.false(error?.message.includes(part), 'the text repeats nothing of the token');
  });
}

test('fuzz: whatever is done to a token, it is read or refused, and never more than one form of it is read', (t) => {
  const seed = Number(process.env['SIGNET_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
  t.log(`SIGNET_SEED=${seed}`);
  const random = randomFrom(seed);
  const good = token();
  for (let round = 0; round < 20_000; round += 1) {
    const bytes = Buffer.from(good);
    for (let i = 0; i < 1 + random(3); i += 1) bytes[random(bytes.length)] = random(2) === 0 ? random(256) : good.charCodeAt(random(good.length));
    const text = random(8) === 0 ? bytes.toString('latin1').slice(random(40)) : bytes.toString('latin1');
    try {
      const { token: read } = readJwt(text);
      const parts = read.split('.').map((part) => Buffer.from(part, 'base64url').toString('base64url'));
      t.is(parts.join('.'), text);
    } catch (error) {
      if (!(error instanceof SignetError)) t.fail(`${JSON.stringify(text)}: ${String(error)}`);
    }
  }
  t.pass();
});

function randomFrom(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}
