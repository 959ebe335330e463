import { bytesField, doubleField, messageField, readFields, textOf, varintField } from '../grpc/protobuf.ts';
import type { TrustBundle } from '../spiffe/bundle.ts';
import { idOfTrustDomain } from '../spiffe/id.ts';
import type { Json, JsonObject } from '../spiffe/jwt.ts';
import type { JwtSvid, X509Svid } from '../spiffe/svid.ts';

// Numbers and types of all fields are those of proto/workloadapi.proto, as published.

export interface JwtSvidRequest {
  readonly audience: readonly string[];
  readonly spiffeId: string;
}

/**
 * `JWTSVIDRequest` (Workload API §6.2.1).
 *
 * @throws {CallFault} it is no message.
 */
export function readJwtSvidRequest(message: Buffer): JwtSvidRequest {
  const audience: string[] = [];
  let spiffeId = '';
  for (const field of readFields(message)) {
    if (field.number === 1) audience.push(textOf(field));
    else if (field.number === 2) spiffeId = textOf(field);
  }
  return { audience, spiffeId };
}

export interface ValidateRequest {
  readonly audience: string;
  readonly svid: string;
}

/**
 * `ValidateJWTSVIDRequest` (Workload API §6.2.3).
 *
 * @throws {CallFault} it is no message.
 */
export function readValidateRequest(message: Buffer): ValidateRequest {
  let [audience, svid] = ['', ''];
  for (const field of readFields(message)) {
    if (field.number === 1) audience = textOf(field);
    else if (field.number === 2) svid = textOf(field);
  }
  return { audience, svid };
}

export interface HintedX509Svid {
  readonly svid: X509Svid;
  readonly hint: string;
}

/** `X509SVIDResponse` (Workload API §5.2.1). */
export function encodeX509Svids(svids: readonly HintedX509Svid[], bundle: TrustBundle): Buffer {
  const authorities = Buffer.concat(bundle.x509Authorities);
  return Buffer.concat(svids.map(({ svid, hint }) => messageField(1, Buffer.concat([
    bytesField(1, svid.id),
    bytesField(2, Buffer.concat(svid.chain)),
    bytesField(3, svid.privateKey),
    bytesField(4, authorities),
    bytesField(5, hint),
  ]))));
}

/** `X509BundlesResponse` (Workload API §5.2.2): keyed by the trust domain's SPIFFE ID. */
export function encodeX509Bundles(bundle: TrustBundle): Buffer {
  return entryField(2, idOfTrustDomain(bundle.trustDomain), Buffer.concat(bundle.x509Authorities));
}

export interface HintedJwtSvid {
  readonly svid: JwtSvid;
  readonly hint: string;
}

/** `JWTSVIDResponse` (Workload API §6.2.1). */
export function encodeJwtSvids(svids: readonly HintedJwtSvid[]): Buffer {
  return Buffer.concat(svids.map(({ svid, hint }) => messageField(1, Buffer.concat([bytesField(1, svid.id), bytesField(2, svid.token), bytesField(3, hint)]))));
}

/**
 * `JWTBundlesResponse` (Workload API §6.2.2): plain JWK Sets. They have no `use`: general JOSE libraries find no key under
 * `jwt-svid`, and SPIRE leaves it out too.
 */
export function encodeJwtBundles(bundle: TrustBundle): Buffer {
  const keys = bundle.jwtAuthorities.map((authority) => ({ ...authority.jwk, kid: authority.kid }));
  return entryField(1, idOfTrustDomain(bundle.trustDomain), Buffer.from(JSON.stringify({ keys })));
}

/** `ValidateJWTSVIDResponse` (Workload API §6.2.3). `aud` is always a list, whatever the token has. */
export function encodeValidation(spiffeId: string, claims: JsonObject, audience: readonly string[]): Buffer {
  return Buffer.concat([bytesField(1, spiffeId), messageField(2, structOf({ ...claims, aud: [...audience] }))]);
}

/** One entry of a map, whose key is a string. Both parts are always written, as protoc's encoders do: some readers miss an empty one. */
function entryField(number: number, key: string, value: Buffer): Buffer {
  return messageField(number, Buffer.concat([messageField(1, Buffer.from(key, 'utf8')), messageField(2, value)]));
}

/** `google.protobuf.Struct`. */
function structOf(object: JsonObject): Buffer {
  return Buffer.concat(Object.entries(object).map(([name, value]) => entryField(1, name, valueOf(value))));
}

/** `google.protobuf.Value`: one of its members is there even where it is empty. */
function valueOf(value: Json): Buffer {
  if (value === null) return varintField(1, 0);
  if (typeof value === 'number') return doubleField(2, value);
  if (typeof value === 'string') return messageField(3, Buffer.from(value, 'utf8'));
  if (typeof value === 'boolean') return varintField(4, value ? 1 : 0);
  if (Array.isArray(value)) return messageField(6, Buffer.concat(value.map((item) => messageField(1, valueOf(item)))));
  return messageField(5, structOf(value));
}
