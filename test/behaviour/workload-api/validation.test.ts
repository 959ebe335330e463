import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CompactEncrypt, FlattenedSign, GeneralSign, SignJWT, type JWTHeaderParameters } from 'jose';
import test, { type ExecutionContext } from 'ava';
import { jwtAuthority } from '../../../src/authority/keys.ts';
import { OWN_ID, startTestAgent, type TestAgent } from '../../support/agent.ts';
import { RawClient } from '../../support/raw-client.ts';

const VALIDATE = '/SpiffeWorkloadAPI/ValidateJWTSVID';
const NOW = Math.floor(Date.now() / 1000);
const CLAIMS = { sub: OWN_ID, aud: ['x'], exp: NOW + 3_600 };

interface Validated {
  readonly spiffe_id: string;
  readonly claims: { readonly fields: Record<string, Value> };
}

interface Value {
  readonly stringValue?: string;
  readonly numberValue?: number;
  readonly boolValue?: boolean;
  readonly nullValue?: string;
  readonly listValue?: { readonly values: readonly Value[] };
  readonly structValue?: { readonly fields: Record<string, Value> };
}

interface Served {
  readonly client: RawClient;
  readonly key: KeyObject;
  readonly kid: string;
}

/** An agent, and the key with which it signs, so that tokens can be made that it never would. */
async function serve(t: ExecutionContext): Promise<Served> {
  const agent = await startTestAgent();
  const client = new RawClient(agent.socketPath);
  t.teardown(async () => {
    client.close();
    await agent.stop();
  });
  const key = signingKeyOf(agent);
  return { client, key, kid: jwtAuthority(createPublicKey(key)).kid };
}

function signingKeyOf(agent: TestAgent): KeyObject {
  const state = JSON.parse(readFileSync(join(agent.config.dataDir, 'embedded-authority.json'), 'utf8')) as { jwt: { privateKey: string }[] };
  return createPrivateKey(state.jwt[0]!.privateKey);
}

function sign({ key, kid }: Served, claims: object = CLAIMS, header: object = {}): Promise<string> {
  return new SignJWT({ ...claims }).setProtectedHeader({ alg: 'ES256', kid, ...header } as JWTHeaderParameters).sign(key);
}

/** Claims as they were before they went into a `google.protobuf.Struct`. */
function plain(value: Value): unknown {
  if (value.structValue !== undefined) return Object.fromEntries(Object.entries(value.structValue.fields).map(([name, member]) => [name, plain(member)]));
  if (value.listValue !== undefined) return value.listValue.values.map(plain);
  if (value.nullValue !== undefined) return null;
  return value.stringValue ?? value.numberValue ?? value.boolValue;
}

test('WA-52, WA-53: texts, numbers, booleans, nothing, lists and nested objects come back as they stood in the token', async (t) => {
  const served = await serve(t);
  const more = {
    text: 'ä 😀 \u0000 "',
    empty: '',
    whole: 42,
    fraction: -1.5,
    large: 2 ** 53,
    yes: true,
    no: false,
    nothing: null,
    list: [1, 'two', [3, []], { four: 4 }],
    nested: { a: { b: { c: ['d'] } }, none: {} },
    constructor: 'a name that objects have',
    'https://example.org/role': 'admin',
  };
  const answer = await served.client.unary<Validated>(VALIDATE, { audience: 'x', svid: await sign(served, { ...CLAIMS, ...more }) });
  t.is(answer.spiffe_id, OWN_ID);
  t.deepEqual(plain({ structValue: answer.claims }), { ...CLAIMS, ...more });
});

test('AM-16: an audience that is one text comes back as a list', async (t) => {
  const served = await serve(t);
  const answer = await served.client.unary<Validated>(VALIDATE, { audience: 'x', svid: await sign(served, { ...CLAIMS, aud: 'x' }) });
  t.deepEqual(plain(answer.claims.fields['aud']!), ['x']);
});

type Make = (served: Served) => Promise<string>;
const other = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
const without = (name: keyof typeof CLAIMS): object => Object.fromEntries(Object.entries(CLAIMS).filter(([key]) => key !== name));
const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
const swap = async (served: Served, index: number, value: string): Promise<string> => (await sign(served)).split('.').with(index, value).join('.');

const INVALID: readonly (readonly [rule: string, what: string, make: Make])[] = [
  ['JS-02', 'the flattened JSON form', async ({ key, kid }) => JSON.stringify(await new FlattenedSign(Buffer.from(JSON.stringify(CLAIMS))).setProtectedHeader({ alg: 'ES256', kid }).sign(key))],
  ['JS-02', 'the general JSON form', async ({ key, kid }) => JSON.stringify(await new GeneralSign(Buffer.from(JSON.stringify(CLAIMS))).addSignature(key).setProtectedHeader({ alg: 'ES256', kid }).done().sign())],
  ['JS-03', 'a header with jku', (served) => sign(served, CLAIMS, { jku: 'https://example.org/keys' })],
  ['JS-03', 'a header with crit', (served) => sign(served, CLAIMS, { crit: ['b64'], b64: true })],
  ['JS-04', 'an encrypted token', ({ key }) => new CompactEncrypt(Buffer.from(JSON.stringify(CLAIMS))).setProtectedHeader({ alg: 'ECDH-ES', enc: 'A128GCM' }).encrypt(createPublicKey(key))],
  ['JS-06', 'alg none', async () => `${part({ alg: 'none' })}.${part(CLAIMS)}.`],
  ['JS-06', 'alg in lower case', (served) => swap(served, 0, part({ alg: 'es256', kid: served.kid }))],
  ['JS-07', 'an algorithm that does not fit the key', (served) => swap(served, 0, part({ alg: 'RS256', kid: served.kid }))],
  ['JS-10', 'typ wit+jwt', (served) => sign(served, CLAIMS, { typ: 'wit+jwt' })],
  ['JS-13', 'no sub', (served) => sign(served, without('sub'))],
  ['JS-13', 'a sub that is no SPIFFE ID', (served) => sign(served, { ...CLAIMS, sub: 'alice' })],
  ['JS-13', 'a sub with a slash at its end', (served) => sign(served, { ...CLAIMS, sub: `${OWN_ID}/` })],
  ['XS-04', 'a sub without a path', (served) => sign(served, { ...CLAIMS, sub: 'spiffe://example.org' })],
  ['JS-15', 'no aud', (served) => sign(served, without('aud'))],
  ['JS-15', 'an empty aud', (served) => sign(served, { ...CLAIMS, aud: [] })],
  ['JS-16', 'another aud', (served) => sign(served, { ...CLAIMS, aud: ['X', 'xx', 'x/'] })],
  ['JS-20', 'no exp', (served) => sign(served, without('exp'))],
  ['JS-20', 'an exp that is a text', (served) => sign(served, { ...CLAIMS, exp: String(CLAIMS.exp) })],
  ['JS-35', 'an nbf in the future', (served) => sign(served, { ...CLAIMS, nbf: NOW + 300 })],
  ['ID-26', 'a sub of another trust domain', (served) => sign(served, { ...CLAIMS, sub: 'spiffe://partner.test/a' })],
  ['JS-23', 'another key under the same kid', ({ kid }) => sign({ key: other, kid } as Served)],
  ['JS-23', 'a changed payload', (served) => swap(served, 1, part({ ...CLAIMS, role: 'admin' }))],
  ['JS-23', 'a fourth part', async (served) => `${await sign(served)}.e30`],
  ['JS-23', 'padding', async (served) => `${await sign(served)}=`],
  ['JS-23', 'a line feed at its end', async (served) => `${await sign(served)}\n`],
];

for (const [rule, what, make] of INVALID) {
  test(`WA-51, ${rule}: a token with ${what} ends with InvalidArgument and one fixed text`, async (t) => {
    const served = await serve(t);
    await t.throwsAsync(served.client.unary(VALIDATE, { audience: 'x', svid: await make(served) }), { code: 3, message: 'svid is not valid' });
  });
}

test('JS-21: a token that has expired is told so, however well it is signed', async (t) => {
  const served = await serve(t);
  const svid = await sign(served, { ...CLAIMS, exp: NOW - 60 });
  await t.throwsAsync(served.client.unary(VALIDATE, { audience: 'x', svid }), { code: 3, message: 'token has expired' });
});

test('JS-23: a token that has expired and was signed by somebody else is not valid, and no more is told', async (t) => {
  const served = await serve(t);
  const svid = await sign({ ...served, key: other }, { ...CLAIMS, exp: NOW - 60 });
  await t.throwsAsync(served.client.unary(VALIDATE, { audience: 'x', svid }), { code: 3, message: 'svid is not valid' });
});

for (const [rule, what, header, claims] of [
  ['JS-08', 'without kid', { kid: undefined }, CLAIMS],
  ['JS-09', 'with typ JOSE', { typ: 'JOSE' }, CLAIMS],
  ['JS-16', 'with the audience among others', {}, { ...CLAIMS, aud: ['y', 'x'] }],
  ['JS-35', 'with iat in the future', {}, { ...CLAIMS, iat: NOW + 300 }],
  ['AM-22', 'with a fraction in exp', {}, { ...CLAIMS, exp: CLAIMS.exp + 0.5 }],
] as const) {
  test(`WA-51, ${rule}: a token ${what} is valid`, async (t) => {
    const served = await serve(t);
    t.is((await served.client.unary<Validated>(VALIDATE, { audience: 'x', svid: await sign(served, claims, header) })).spiffe_id, OWN_ID);
  });
}
