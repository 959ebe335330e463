import { constants, createHmac, generateKeyPairSync, sign, type KeyObject } from 'node:crypto';
import test from 'ava';
import { WorkloadApiClient } from '../../../src/client/workload-api-client.ts';
import { refusals } from '../../../src/workload-api/status.ts';
import { OWN_ID, startTestAgent, type TestAgent } from '../../support/agent.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { endingFor } from '../../support/hostile-messages.ts';
import { call, protoField, VALIDATE_JWT } from '../../support/hostile-wire.ts';

/** The agent, a token that it has issued, and what a forger knows: all that is public. */
interface Target {
  readonly agent: TestAgent;
  readonly clock: FakeClock;
  readonly token: string;
  readonly kid: string;
  readonly publicKey: KeyObject;
  /** Why callers were refused, as the operator is told. */
  readonly reasons: readonly string[];
}

const AUDIENCE = 'victim';
const forger = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const rsaForger = generateKeyPairSync('rsa', { modulusLength: 2048 });

let target: Target;

test.before(async () => {
  const clock = new FakeClock();
  const agent = await startTestAgent({ clock });
  const reasons: string[] = [];
  agent.agent.events.on('refused', ({ detail = '' }) => void reasons.push(detail));
  const client = new WorkloadApiClient({ endpoint: `unix://${agent.socketPath}` });
  const [svid] = await client.fetchJwtSvids({ audience: [AUDIENCE] });
  const [[key] = []] = [...(await client.fetchJwtBundles()).values()];
  await client.close();
  if (svid === undefined || key === undefined) throw new Error('no token or no key');
  target = { agent, clock, token: svid.token, kid: key.kid, publicKey: key.publicKey, reasons };
});

test.after.always(() => target?.agent.stop());

const encode = (value: unknown): string => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');

function es256(header: unknown, claims: unknown, key: KeyObject = forger.privateKey): string {
  const signed = `${encode(header)}.${encode(claims)}`;
  return `${signed}.${sign('sha256', Buffer.from(signed), { key, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
}

function hs256(header: object, claims: object, secret: string | Buffer): string {
  const signed = `${encode(header)}.${encode(claims)}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

/** The payload of the agent's own token, changed; signed, unless it is the forger's key that does not fit anyway. */
function claims(changes: object = {}): Record<string, unknown> {
  const own = JSON.parse(Buffer.from(target.token.split('.')[1] ?? '', 'base64url').toString()) as Record<string, unknown>;
  return { ...own, ...changes };
}

const header = (more: object = {}): object => ({ alg: 'ES256', kid: target.kid, typ: 'JWT', ...more });
const nested = (depth: number): string => `${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`;

/** `token` with something in the place of one of its parts. */
function withPart(part: 0 | 1 | 2, change: (text: string) => string): string {
  return target.token.split('.').map((text, at) => (at === part ? change(text) : text)).join('.');
}

const flipped = (text: string): string => `${text.startsWith('e') ? 'f' : 'e'}${text.slice(1)}`;
const spki = (format: 'pem' | 'der'): string | Buffer => target.publicKey.export({ type: 'spki', format: format as 'pem' });
const jwkOf = (key: KeyObject): object => key.export({ format: 'jwk' });

/** Each forgery, made when the agent's key is known. */
const FORGERIES: Readonly<Record<string, () => string>> = {
  'JS-04, JS-23: alg none, no signature': () => `${encode(header({ alg: 'none' }))}.${encode(claims())}.`,
  'JS-04, JS-06: alg none with the signature of the true token': () => withPart(0, () => encode(header({ alg: 'none' }))),
  'JS-06: alg None': () => withPart(0, () => encode(header({ alg: 'None' }))),
  'JS-06: alg es256': () => withPart(0, () => encode(header({ alg: 'es256' }))),
  'JS-06: no alg': () => withPart(0, () => encode({ kid: target.kid })),
  'JS-06: alg is a number': () => withPart(0, () => encode(header({ alg: 256 }))),
  'JS-06: alg is a list': () => withPart(0, () => encode(header({ alg: ['ES256'] }))),
  'JS-06: EdDSA': () => withPart(0, () => encode(header({ alg: 'EdDSA' }))),
  'JS-07, JS-06: HS256 with the public key as PEM': () => hs256(header({ alg: 'HS256' }), claims(), spki('pem')),
  'JS-07, JS-06: HS256 with the public key as DER': () => hs256(header({ alg: 'HS256' }), claims(), spki('der')),
  'JS-07, JS-06: HS256 with the public key as JWK': () => hs256(header({ alg: 'HS256' }), claims(), JSON.stringify(jwkOf(target.publicKey))),
  'JS-07, JS-23: RS256 in the header of a token for an EC key': () => withPart(0, () => encode(header({ alg: 'RS256' }))),
  'JS-07, JS-23: ES384 in the header of a token for a P-256 key': () => withPart(0, () => encode(header({ alg: 'ES384' }))),
  'JS-23: another key under the same kid': () => es256(header(), claims()),
  'JS-23: another RSA key under the same kid': () => {
    const signed = `${encode(header({ alg: 'PS256' }))}.${encode(claims())}`;
    const key = { key: rsaForger.privateKey, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 };
    return `${signed}.${sign('sha256', Buffer.from(signed), key).toString('base64url')}`;
  },
  'JS-23: another key without a kid': () => es256({ alg: 'ES256' }, claims()),
  'JS-23: another key under its own kid': () => es256(header({ kid: 'mine' }), claims()),
  'JS-23: kid is a path': () => es256(header({ kid: '../../../../dev/null' }), claims()),
  'JS-34: kid is a number': () => es256(header({ kid: 1 }), claims()),
  'JS-23: kid is __proto__': () => es256(header({ kid: '__proto__' }), claims()),
  'JS-03: an embedded jwk': () => es256(header({ jwk: jwkOf(forger.publicKey) }), claims()),
  'JS-03: an embedded jwk, and no kid': () => es256({ alg: 'ES256', jwk: jwkOf(forger.publicKey) }, claims()),
  'JS-03: jku': () => es256(header({ jku: 'https://forger.example/keys' }), claims()),
  'JS-03: x5u': () => es256(header({ x5u: 'https://forger.example/certificate' }), claims()),
  'JS-03: x5c': () => es256(header({ x5c: ['MIIB'] }), claims()),
  'JS-03: crit': () => es256(header({ crit: ['exp'] }), claims()),
  'JS-03: b64 false': () => es256(header({ b64: false, crit: ['b64'] }), claims()),
  'JS-03: __proto__ in the header': () => es256(`{"alg":"ES256","kid":${JSON.stringify(target.kid)},"__proto__":{"typ":"JWT"}}`, claims()),
  'JS-06: alg only by way of __proto__': () => es256('{"__proto__":{"alg":"ES256"}}', claims()),
  'JS-13: sub only by way of __proto__': () => es256(header(), `{"aud":"${AUDIENCE}","exp":9999999999,"__proto__":{"sub":"${OWN_ID}"}}`),
  'JS-10: typ wit+jwt': () => es256(header({ typ: 'wit+jwt' }), claims()),
  'JS-13: no sub': () => es256(header(), claims({ sub: undefined })),
  'JS-13: sub is the trust domain': () => es256(header(), claims({ sub: 'spiffe://example.org' })),
  'JS-13: sub with CR and LF': () => es256(header(), claims({ sub: `${OWN_ID}\r\nx: y` })),
  'ID-26: sub of another trust domain': () => es256(header(), claims({ sub: 'spiffe://forger.example/a' })),
  'JS-15: no aud': () => es256(header(), claims({ aud: undefined })),
  'JS-15: aud is an empty list': () => es256(header(), claims({ aud: [] })),
  'JS-15: aud is an object': () => es256(header(), claims({ aud: { 0: AUDIENCE } })),
  'JS-20: no exp': () => es256(header(), claims({ exp: undefined })),
  'JS-20: exp is a text': () => es256(header(), claims({ exp: '9999999999' })),
  'JS-20: exp is null': () => es256(header(), claims({ exp: null })),
  'JS-20: exp is beyond all numbers': () => es256(header(), JSON.stringify(claims()).replace(/"exp":\d+/, '"exp":1e999')),
  'JS-21, JS-23: exp in the past, by a forger, who does not even learn that': () => es256(header(), claims({ exp: 1 })),
  'JS-35: nbf is a text': () => es256(header(), claims({ nbf: 'now' })),
  'JS-23: one character of the header changed': () => withPart(0, flipped),
  'JS-23: one character of the payload changed': () => withPart(1, flipped),
  'JS-23: one character of the signature changed': () => withPart(2, flipped),
  'JS-23: a signature of nothing but zeros': () => withPart(2, () => Buffer.alloc(64).toString('base64url')),
  'JS-23: half a signature': () => withPart(2, (text) => text.slice(0, 43)),
  'JS-23: no signature': () => withPart(2, () => ''),
  'JS-23: a signature in DER': () => {
    const signed = `${encode(header())}.${encode(claims())}`;
    return `${signed}.${sign('sha256', Buffer.from(signed), forger.privateKey).toString('base64url')}`;
  },
  'JS-23: CR and LF inside a true token': () => withPart(1, (text) => `${text.slice(0, 9)}\r\n${text.slice(9)}`),
  'JS-23: LF after a true token': () => `${target.token}\n`,
  'JS-23: a blank before a true token': () => ` ${target.token}`,
  'JS-23: NUL after a true token': () => `${target.token}\0`,
  'JS-23: padding after a true token': () => `${target.token}==`,
  'JS-23: plain base64 instead of base64url': () => withPart(2, () => `${'+/'.repeat(43)}`),
  'JS-01: two parts': () => target.token.split('.').slice(0, 2).join('.'),
  'JS-04, JS-01: five parts, as in a JWE': () => `${target.token}.a.b`,
  'JS-01: 32,000 dots': () => '.'.repeat(32_000),
  'JS-02, JS-01: JSON serialization': () => {
    const [protectedPart, payload, signature] = target.token.split('.');
    return JSON.stringify({ protected: protectedPart, payload, signature });
  },
  'JS-23: a header that is a list': () => es256('[]', claims()),
  'JS-23: a header that is null': () => es256('null', claims()),
  'JS-23: a payload that is a text': () => es256(header(), '"text"'),
  'JS-23: a payload that is not UTF-8': () => `${encode(header())}.${Buffer.from([0x7b, 0xff, 0x7d]).toString('base64url')}.AAAA`,
  'JS-13: 5,000 objects in one another': () => es256(header(), nested(5_000)),
  'JS-06: 5,000 objects in one another in the header': () => es256(nested(5_000), claims()),
  'JS-23: 20,000 lists in one another': () => `${encode(header())}.${encode(`{"a":${'['.repeat(20_000)}`)}.AAAA`,
  'JS-23: a token of 64 KiB': () => `${target.token}${'A'.repeat(65_536 - target.token.length)}`,
};

function validate(token: string, audience = AUDIENCE): Promise<string> {
  const message = Buffer.concat([protoField(1, audience), protoField(2, token)]);
  return endingFor(target.agent.socketPath, (stream) => call(stream, VALIDATE_JWT, message));
}

/** A line of the log that repeats any piece of the token. */
function leaks(token: string): string[] {
  const pieces = token.split('.').filter((piece) => piece.length >= 16).map((piece) => piece.slice(0, 16));
  return target.agent.lines.map((line) => JSON.stringify(line)).filter((line) => pieces.some((piece) => line.includes(piece)));
}

test.serial('the true token is valid, so that whatever is refused below is refused for what was done to it', async (t) => {
  t.is(await validate(target.token), '0 OK');
});

for (const [title, make] of Object.entries(FORGERIES)) {
  test.serial(`${title}: refused as InvalidArgument, with a text that tells nothing`, async (t) => {
    const token = make();
    const ending = await validate(token);
    t.is(ending, `${refusals.badToken.code} ${refusals.badToken.details}`);
    const [rules = ''] = title.split(':');
    t.true(rules.split(', ').includes(target.reasons.at(-1)?.slice(0, 5) ?? ''), `the operator is told: ${target.reasons.at(-1)}`);
    t.deepEqual(leaks(token), []);
  });
}

test.serial('JS-16: a true token for another audience', async (t) => {
  for (const audience of ['Victim', 'victim/', 'victi', 'victim\0', 'victim,other']) {
    t.is(await validate(target.token, audience), `${refusals.badToken.code} ${refusals.badToken.details}`);
  }
});

test.serial('the agent has found no mistake in itself, nor has its memory of tokens been poisoned', async (t) => {
  t.deepEqual(target.agent.lines.filter(({ level, event }) => level === 'error' || event === 'agent.mistake'), []);
  t.false('typ' in {} || 'alg' in {} || 'sub' in {});
  t.is(await validate(target.token), '0 OK');
});

test.serial('JS-21: a true token that has expired is told so, and only that', async (t) => {
  target.clock.step(6 * 60_000);
  t.is(await validate(target.token), `${refusals.expiredToken.code} ${refusals.expiredToken.details}`);
  t.deepEqual(leaks(target.token), []);
});

test.serial('JS-35: a true token before its time', async (t) => {
  target.clock.step(-60 * 60_000);
  const ending = await validate(target.token);
  const hasNotBefore = claims()['nbf'] !== undefined;
  t.is(ending, hasNotBefore ? `${refusals.badToken.code} ${refusals.badToken.details}` : '0 OK');
});
