/** Where the SPIRE server is, and how this node joins. */
export interface SpireOptions {
  readonly host: string;
  readonly port: number;
  /** PEM file with the server's trust bundle, for the first contact; what the server then says of its bundle is kept and followed. */
  readonly bundleFile: string;
  readonly attestation: SpireAttestation;
  /** How often the bundle and our entries are looked at, in milliseconds; the bundle's own hint may be shorter. Default 5 s. */
  readonly syncMs?: number;
  /** For one call, in milliseconds. Default 15 s. */
  readonly callMs?: number;
}

/** A node attestor of the server. Files are read anew at each attempt. */
export type SpireAttestation =
  | { readonly method: 'join_token'; readonly tokenFile: string }
  /** A token of the service account, bound to the agent's pod; `cluster` is the server's name for the cluster. */
  | { readonly method: 'k8s_psat'; readonly cluster: string; readonly tokenFile: string }
  /** PEM: the certificate with those between it and its root, and its key. */
  | { readonly method: 'x509pop'; readonly certificate: string; readonly key: string };

export const SYNC_MS = 5_000;
export const CALL_MS = 15_000;
