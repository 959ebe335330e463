import { fileURLToPath } from 'node:url';
import type { MethodDefinition, ServiceDefinition } from '@grpc/grpc-js';
import { loadSync, type PackageDefinition } from '@grpc/proto-loader';
import type { TrustBundle } from '../spiffe/bundle.ts';
import { idOfTrustDomain } from '../spiffe/id.ts';
import type { Json, JsonObject } from '../spiffe/jwt.ts';
import type { JwtSvid, X509Svid } from '../spiffe/svid.ts';

const PROTO = fileURLToPath(new URL('../../proto/workloadapi.proto', import.meta.url));

/** Field names as published. `google.protobuf.Struct` keeps its own (camel case) in either case, see `structOf`. */
export const packageDefinition: PackageDefinition = loadSync(PROTO, { keepCase: true, defaults: true, arrays: true, objects: true });

type Method = 'FetchX509SVID' | 'FetchX509Bundles' | 'FetchJWTSVID' | 'FetchJWTBundles' | 'ValidateJWTSVID' | 'FetchWITSVID' | 'FetchWITBundles';

const published = packageDefinition['SpiffeWorkloadAPI'] as unknown as Record<Method, MethodDefinition<object, object>>;

/** The service as published, but its responses are bytes already: what is sent to many is encoded once. */
export const workloadApi: ServiceDefinition = Object.fromEntries(
  Object.entries(published).map(([name, method]) => [name, { ...method, responseSerialize: (bytes: Buffer) => bytes }]),
);

export interface HintedX509Svid {
  readonly svid: X509Svid;
  readonly hint: string;
}

/** `X509SVIDResponse` (Workload API §5.2.1). */
export function encodeX509Svids(svids: readonly HintedX509Svid[], bundle: TrustBundle): Buffer {
  const authorities = Buffer.concat(bundle.x509Authorities);
  return published.FetchX509SVID.responseSerialize({
    svids: svids.map(({ svid, hint }) => ({
      spiffe_id: svid.id,
      x509_svid: Buffer.concat(svid.chain),
      x509_svid_key: svid.privateKey,
      bundle: authorities,
      hint,
    })),
  });
}

/** `X509BundlesResponse` (Workload API §5.2.2): keyed by the trust domain's SPIFFE ID. */
export function encodeX509Bundles(bundle: TrustBundle): Buffer {
  return published.FetchX509Bundles.responseSerialize({
    bundles: { [idOfTrustDomain(bundle.trustDomain)]: Buffer.concat(bundle.x509Authorities) },
  });
}

export interface HintedJwtSvid {
  readonly svid: JwtSvid;
  readonly hint: string;
}

/** `JWTSVIDResponse` (Workload API §6.2.1). */
export function encodeJwtSvids(svids: readonly HintedJwtSvid[]): Buffer {
  return published.FetchJWTSVID.responseSerialize({ svids: svids.map(({ svid, hint }) => ({ spiffe_id: svid.id, svid: svid.token, hint })) });
}

/**
 * `JWTBundlesResponse` (Workload API §6.2.2): plain JWK Sets. They have no `use`: general JOSE libraries find no key under
 * `jwt-svid`, and SPIRE leaves it out too.
 */
export function encodeJwtBundles(bundle: TrustBundle): Buffer {
  const keys = bundle.jwtAuthorities.map((authority) => ({ ...authority.jwk, kid: authority.kid }));
  return published.FetchJWTBundles.responseSerialize({
    bundles: { [idOfTrustDomain(bundle.trustDomain)]: Buffer.from(JSON.stringify({ keys })) },
  });
}

/** `ValidateJWTSVIDResponse` (Workload API §6.2.3). `aud` is always a list, whatever the token has. */
export function encodeValidation(spiffeId: string, claims: JsonObject, audience: readonly string[]): Buffer {
  return published.ValidateJWTSVID.responseSerialize({ spiffe_id: spiffeId, claims: structOf({ ...claims, aud: [...audience] }) });
}

function structOf(object: JsonObject): object {
  return { fields: Object.fromEntries(Object.entries(object).map(([name, value]) => [name, valueOf(value)])) };
}

function valueOf(value: Json): object {
  if (value === null) return { nullValue: 0 };
  if (typeof value === 'string') return { stringValue: value };
  if (typeof value === 'number') return { numberValue: value };
  if (typeof value === 'boolean') return { boolValue: value };
  if (Array.isArray(value)) return { listValue: { values: value.map(valueOf) } };
  return { structValue: structOf(value) };
}
