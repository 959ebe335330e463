/** The messages of proto/workloadapi.proto as proto-loader gives them, with `keepCase`, `defaults`, `arrays` and `objects`. */
export interface X509SvidMessage {
  readonly spiffe_id: string;
  readonly x509_svid: Buffer;
  readonly x509_svid_key: Buffer;
  readonly bundle: Buffer;
  readonly hint: string;
}

export interface X509SvidResponse {
  readonly svids: readonly X509SvidMessage[];
  readonly crl: readonly Buffer[];
  readonly federated_bundles: Readonly<Record<string, Buffer>>;
}

export interface X509BundlesResponse {
  readonly crl: readonly Buffer[];
  readonly bundles: Readonly<Record<string, Buffer>>;
}

export interface JwtSvidRequest {
  readonly audience: readonly string[];
  readonly spiffe_id: string;
}

export interface JwtSvidMessage {
  readonly spiffe_id: string;
  readonly svid: string;
  readonly hint: string;
}

export interface JwtSvidResponse {
  readonly svids: readonly JwtSvidMessage[];
}

export interface JwtBundlesResponse {
  readonly bundles: Readonly<Record<string, Buffer>>;
}

export interface ValidateJwtSvidRequest {
  readonly audience: string;
  readonly svid: string;
}

/**
 * google.protobuf.Value. `keepCase` does not reach the well-known types, whose members stay in camel case; `kind` is the name of
 * the member that is set, or absent.
 */
export interface StructValue {
  readonly kind?: 'nullValue' | 'numberValue' | 'stringValue' | 'boolValue' | 'structValue' | 'listValue';
  readonly numberValue?: number;
  readonly stringValue?: string;
  readonly boolValue?: boolean;
  readonly structValue?: Struct;
  readonly listValue?: { readonly values: readonly StructValue[] };
}

/** google.protobuf.Struct */
export interface Struct {
  readonly fields: Readonly<Record<string, StructValue>>;
}

export interface ValidateJwtSvidResponse {
  readonly spiffe_id: string;
  readonly claims: Struct | null;
}

type Empty = Readonly<Record<string, never>>;

/** The functions of the Workload API that this client calls. */
export interface WorkloadApi {
  FetchX509SVID: { request: Empty; response: X509SvidResponse };
  FetchX509Bundles: { request: Empty; response: X509BundlesResponse };
  FetchJWTSVID: { request: JwtSvidRequest; response: JwtSvidResponse };
  FetchJWTBundles: { request: Empty; response: JwtBundlesResponse };
  ValidateJWTSVID: { request: ValidateJwtSvidRequest; response: ValidateJwtSvidResponse };
}

export type UnaryMethod = 'FetchJWTSVID' | 'ValidateJWTSVID';
export type StreamMethod = Exclude<keyof WorkloadApi, UnaryMethod>;
