import { fileURLToPath } from 'node:url';
import type * as Grpc from '@grpc/grpc-js';
import type { MessageTypeDefinition, PackageDefinition } from '@grpc/proto-loader';

export interface WireId {
  readonly trustDomain: string;
  readonly path: string;
}

export interface WireSvid {
  /** DER, leaf first. */
  readonly certChain: readonly Buffer[];
  readonly id: WireId | null;
}

export interface WireJwtKey {
  /** SPKI in DER. */
  readonly publicKey: Buffer;
  readonly keyId: string;
  /** Seconds since the Unix epoch; 0 for a key without end. */
  readonly expiresAt: number;
  readonly tainted: boolean;
}

export interface WireBundle {
  readonly trustDomain: string;
  readonly x509Authorities: readonly { readonly asn1: Buffer; readonly tainted: boolean }[];
  readonly jwtAuthorities: readonly WireJwtKey[];
  /** Seconds; 0 for none. */
  readonly refreshHint: number;
}

interface Csr {
  readonly csr: Buffer;
}

export interface AttestAgentRequest {
  readonly params?: { readonly data: { readonly type: string; readonly payload: Buffer }; readonly params: Csr };
  readonly challengeResponse?: Buffer;
}

export interface AttestAgentResponse {
  readonly step?: 'result' | 'challenge';
  readonly result?: { readonly svid: WireSvid | null; readonly reattestable: boolean } | null;
  readonly challenge?: Buffer;
}

/** What is asked, by the name of the method. */
export interface SpireMethods {
  RenewAgent: { request: { params: Csr }; response: { svid: WireSvid | null } };
  GetAuthorizedEntries: {
    request: Record<string, never>;
    response: { entries: readonly { readonly id: string; readonly spiffeId: WireId | null; readonly downstream: boolean }[] };
  };
  BatchNewX509SVID: {
    request: { params: readonly { readonly entryId: string; readonly csr: Buffer }[] };
    response: { results: readonly { readonly status: { readonly code: number; readonly message: string } | null; readonly svid: WireSvid | null }[] };
  };
  NewDownstreamX509CA: {
    request: { csr: Buffer; preferredTtl: number };
    response: { caCertChain: readonly Buffer[]; x509Authorities: readonly Buffer[] };
  };
  GetBundle: { request: { outputMask: Record<'x509Authorities' | 'jwtAuthorities' | 'refreshHint' | 'sequenceNumber', boolean> }; response: WireBundle };
  PublishJWTAuthority: { request: { jwtAuthority: WireJwtKey }; response: { jwtAuthorities: readonly WireJwtKey[] } };
}

export type SpireMethod = keyof SpireMethods;
export type RequestOf<M extends SpireMethod> = SpireMethods[M]['request'];
export type ResponseOf<M extends SpireMethod> = SpireMethods[M]['response'];

const SERVER = '/spire.api.server';

const METHODS: Readonly<Record<SpireMethod | 'AttestAgent', { readonly path: string; readonly request: string; readonly response: string }>> = {
  AttestAgent: { path: `${SERVER}.agent.v1.Agent/AttestAgent`, request: 'AttestAgentRequest', response: 'AttestAgentResponse' },
  RenewAgent: { path: `${SERVER}.agent.v1.Agent/RenewAgent`, request: 'RenewAgentRequest', response: 'RenewAgentResponse' },
  GetAuthorizedEntries: { path: `${SERVER}.entry.v1.Entry/GetAuthorizedEntries`, request: 'GetAuthorizedEntriesRequest', response: 'GetAuthorizedEntriesResponse' },
  BatchNewX509SVID: { path: `${SERVER}.svid.v1.SVID/BatchNewX509SVID`, request: 'BatchNewX509SVIDRequest', response: 'BatchNewX509SVIDResponse' },
  NewDownstreamX509CA: { path: `${SERVER}.svid.v1.SVID/NewDownstreamX509CA`, request: 'NewDownstreamX509CARequest', response: 'NewDownstreamX509CAResponse' },
  GetBundle: { path: `${SERVER}.bundle.v1.Bundle/GetBundle`, request: 'GetBundleRequest', response: 'Bundle' },
  PublishJWTAuthority: { path: `${SERVER}.bundle.v1.Bundle/PublishJWTAuthority`, request: 'PublishJWTAuthorityRequest', response: 'PublishJWTAuthorityResponse' },
};

export interface Codec<Sent, Received> {
  readonly path: string;
  readonly encode: (message: Sent) => Buffer;
  readonly decode: (bytes: Buffer) => Received;
}

/** Why a SPIRE server denies something to an agent, by the name that its API has for it. */
export type DeniedReason = 'UNKNOWN' | 'AGENT_EXPIRED' | 'AGENT_NOT_ATTESTED' | 'AGENT_NOT_ACTIVE' | 'AGENT_BANNED' | 'AGENT_MUST_REATTEST';

/** The gRPC library and the messages; in memory only where a SPIRE server is configured. */
export interface SpireApi {
  readonly grpc: typeof Grpc;
  codecOf<M extends SpireMethod>(method: M): Codec<RequestOf<M>, ResponseOf<M>>;
  readonly attest: Codec<AttestAgentRequest, AttestAgentResponse>;
  /** The reason in `grpc-status-details-bin`; undefined when it has none. */
  deniedReason(details: Buffer): DeniedReason | undefined;
}

/** The same depth below src/ and below dist/. */
const PROTO = fileURLToPath(new URL('../../../proto/spire-server.proto', import.meta.url));
const DENIED = 'type.googleapis.com/spire.api.types.PermissionDeniedDetails';

let loaded: Promise<SpireApi> | undefined;

export function loadSpireApi(): Promise<SpireApi> {
  loaded ??= load();
  return loaded;
}

async function load(): Promise<SpireApi> {
  const [grpc, loader] = await Promise.all([import('@grpc/grpc-js'), import('@grpc/proto-loader')]);
  const messages = await loader.load(PROTO, { defaults: true, arrays: true, oneofs: true, longs: Number, enums: String });
  const codec = <Sent, Received>(method: SpireMethod | 'AttestAgent'): Codec<Sent, Received> => {
    const { path, request, response } = METHODS[method];
    return { path, encode: (message) => typeOf(messages, request).serialize(message as object), decode: (bytes) => typeOf(messages, response).deserialize(bytes) as Received };
  };
  return {
    grpc,
    codecOf: (method) => codec(method),
    attest: codec('AttestAgent'),
    deniedReason: (details) => deniedReason(messages, details),
  };
}

function typeOf(messages: PackageDefinition, name: string): MessageTypeDefinition<object, object> {
  return messages[`spire.${name}`] as MessageTypeDefinition<object, object>;
}

function deniedReason(messages: PackageDefinition, bytes: Buffer): DeniedReason | undefined {
  try {
    const { details } = typeOf(messages, 'Status').deserialize(bytes) as { details: readonly { typeUrl: string; value: Buffer }[] };
    const found = details.find(({ typeUrl }) => typeUrl === DENIED);
    return found && (typeOf(messages, 'PermissionDeniedDetails').deserialize(found.value) as { reason: DeniedReason }).reason;
  } catch {
    // The status itself says enough.
    return undefined;
  }
}
