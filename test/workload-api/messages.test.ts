import { fileURLToPath } from 'node:url';
import type { ServiceDefinition } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import test from 'ava';
import { CallFault } from '../../src/grpc/status.ts';
import type { JwtAuthority, TrustBundle } from '../../src/spiffe/bundle.ts';
import { parseSpiffeId, parseTrustDomain } from '../../src/spiffe/id.ts';
import type { Json, JsonObject } from '../../src/spiffe/jwt.ts';
import type { JwtSvid, X509Svid } from '../../src/spiffe/svid.ts';
import { encodeJwtBundles, encodeJwtSvids, encodeValidation, encodeX509Bundles, encodeX509Svids, readJwtSvidRequest, readValidateRequest } from '../../src/workload-api/messages.ts';
import { Dice, testSeed } from '../support/http2-wire.ts';

// Against the published proto, in both directions, as another implementation of protobuf has it.

const published = loadSync(fileURLToPath(new URL('../../proto/workloadapi.proto', import.meta.url)), { keepCase: true, defaults: true, longs: Number })['SpiffeWorkloadAPI'] as unknown as ServiceDefinition;
const decode = (method: string, bytes: Buffer): unknown => published[method]!.responseDeserialize(bytes);
const encode = (method: string, request: object): Buffer => published[method]!.requestSerialize(request) as Buffer;

const seed = testSeed();
const ROUNDS = 300;

/** Values of every kind and length, drawn anew. */
class Draw {
  readonly dice = new Dice(seed);

  text(): string {
    return Array.from({ length: this.dice.pick([0, 1, 3, 127, 128, 20]) }, () => this.dice.pick(['a', 'ä', '€', '😀', '\0', '"', ' '])).join('');
  }

  bytes(): Buffer {
    return Buffer.from(Array.from({ length: this.dice.pick([0, 1, 127, 128, 300, 17_000]) }, () => this.dice.below(256)));
  }

  list<T>(make: () => T): T[] {
    return Array.from({ length: this.dice.below(4) }, make);
  }

  id(): ReturnType<typeof parseSpiffeId> {
    return parseSpiffeId(`spiffe://example.org/${'a'.repeat(1 + this.dice.below(200))}`);
  }

  bundle(): TrustBundle {
    const authority = (): JwtAuthority => ({ kid: this.text(), jwk: { kty: 'EC', crv: 'P-256', x: 'x', y: this.text() } }) as unknown as JwtAuthority;
    return { trustDomain: parseTrustDomain('example.org'), x509Authorities: this.list(() => this.bytes()), jwtAuthorities: this.list(authority) };
  }

  json(depth = 0): Json {
    const kind = this.dice.below(depth > 3 ? 4 : 6);
    if (kind === 0) return null;
    if (kind === 1) return this.dice.pick([0, -1, 1.5, 1e300, -0.1, 1_893_456_000]);
    if (kind === 2) return this.text();
    if (kind === 3) return this.dice.chance(2);
    if (kind === 4) return this.list(() => this.json(depth + 1));
    return this.object(depth + 1);
  }

  object(depth = 0): JsonObject {
    return Object.fromEntries(this.list(() => [this.dice.pick(['sub', 'exp', 'toString', '', 'ä', 'x']), this.json(depth)]));
  }
}

test(`requests of proto-loader are read as they were meant (SIGNET_SEED=${seed})`, (t) => {
  const draw = new Draw();
  for (let round = 0; round < ROUNDS; round++) {
    const [audience, id] = [draw.list(() => draw.text()), draw.text()];
    t.deepEqual(readJwtSvidRequest(encode('FetchJWTSVID', { audience, spiffe_id: id })), { audience, spiffeId: id });
    const [one, svid] = [draw.text(), draw.text()];
    t.deepEqual(readValidateRequest(encode('ValidateJWTSVID', { audience: one, svid })), { audience: one, svid });
  }
});

test('a field that is not one of the request is passed over; of a single one that comes twice the last counts', (t) => {
  const twice = Buffer.concat([encode('ValidateJWTSVID', { audience: 'a', svid: 'b' }), Buffer.from('9a0601ff', 'hex'), encode('ValidateJWTSVID', { audience: 'c', svid: 'd' })]);
  t.deepEqual(readValidateRequest(twice), { audience: 'c', svid: 'd' });
  t.throws(() => readJwtSvidRequest(Buffer.from('0a01ff', 'hex')), { instanceOf: CallFault });
});

test(`X.509-SVIDs are read by proto-loader as they were meant (SIGNET_SEED=${seed})`, (t) => {
  const draw = new Draw();
  for (let round = 0; round < ROUNDS; round++) {
    const bundle = draw.bundle();
    const svids = draw.list(() => ({ svid: { id: draw.id(), chain: draw.list(() => draw.bytes()), privateKey: draw.bytes() } as unknown as X509Svid, hint: draw.text() }));
    t.deepEqual(decode('FetchX509SVID', encodeX509Svids(svids, bundle)), {
      svids: svids.map(({ svid, hint }) => ({ spiffe_id: svid.id, x509_svid: Buffer.concat(svid.chain), x509_svid_key: svid.privateKey, bundle: Buffer.concat(bundle.x509Authorities), hint })),
      crl: [],
      federated_bundles: {},
    });
  }
});

test(`bundles are read by proto-loader as they were meant (SIGNET_SEED=${seed})`, (t) => {
  const draw = new Draw();
  for (let round = 0; round < ROUNDS; round++) {
    const bundle = draw.bundle();
    t.deepEqual(decode('FetchX509Bundles', encodeX509Bundles(bundle)), { crl: [], bundles: { 'spiffe://example.org': Buffer.concat(bundle.x509Authorities) } });
    const { bundles } = decode('FetchJWTBundles', encodeJwtBundles(bundle)) as { bundles: Record<string, Buffer> };
    t.deepEqual(Object.keys(bundles), ['spiffe://example.org']);
    t.deepEqual(JSON.parse(String(bundles['spiffe://example.org'])), { keys: bundle.jwtAuthorities.map(({ kid, jwk }) => ({ ...jwk, kid })) });
  }
});

test(`JWT-SVIDs are read by proto-loader as they were meant (SIGNET_SEED=${seed})`, (t) => {
  const draw = new Draw();
  for (let round = 0; round < ROUNDS; round++) {
    const svids = draw.list(() => ({ svid: { id: draw.id(), token: draw.text() } as unknown as JwtSvid, hint: draw.text() }));
    t.deepEqual(decode('FetchJWTSVID', encodeJwtSvids(svids)), { svids: svids.map(({ svid, hint }) => ({ spiffe_id: svid.id, svid: svid.token, hint })) });
  }
});

test(`claims are read by proto-loader as they were meant, aud always as a list (SIGNET_SEED=${seed})`, (t) => {
  const draw = new Draw();
  for (let round = 0; round < ROUNDS; round++) {
    const [claims, audience] = [draw.object(), draw.list(() => draw.text())];
    const { spiffe_id: id, claims: struct } = decode('ValidateJWTSVID', encodeValidation('spiffe://example.org/a', claims, audience)) as { spiffe_id: string; claims: Struct };
    t.is(id, 'spiffe://example.org/a');
    t.deepEqual(fromStruct(struct), { ...claims, aud: audience });
  }
});

interface Struct {
  readonly fields: Readonly<Record<string, Value>>;
}

interface Value {
  readonly nullValue?: unknown;
  readonly numberValue?: number;
  readonly stringValue?: string;
  readonly boolValue?: boolean;
  readonly structValue?: Struct;
  readonly listValue?: { readonly values: readonly Value[] };
}

function fromStruct({ fields }: Struct): JsonObject {
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, fromValue(value)]));
}

function fromValue(value: Value): Json {
  if (value.structValue != null) return fromStruct(value.structValue);
  if (value.listValue != null) return value.listValue.values.map(fromValue);
  return value.numberValue ?? value.stringValue ?? value.boolValue ?? null;
}
