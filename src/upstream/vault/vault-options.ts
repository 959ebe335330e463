/** Where Vault or OpenBao is, and how to prove ourselves to it. */
export interface VaultOptions {
  /** `https:`; `http:` only for a loopback address. */
  readonly address: URL;
  /** Namespace of all requests. Default none. */
  readonly namespace?: string;
  /** PEM file with the only CAs that are believed; read again when it changes. Default: those of the system. */
  readonly caFile?: string;
  /** The name that the server's certificate must be for, where it is not the one in `address`. */
  readonly serverName?: string;
  readonly auth: VaultAuth;
  readonly limits?: Partial<VaultLimits>;
}

/** A way to log in. All files are read anew at each login. */
export type VaultAuth =
  | {
      readonly method: 'kubernetes' | 'jwt';
      readonly mount: string;
      readonly role: string;
      /** A token of the pod's service account, or another JWT that the role takes. */
      readonly jwtFile: string;
    }
  | {
      readonly method: 'approle';
      readonly mount: string;
      readonly roleIdFile: string;
      /** May be left out where the role has `bind_secret_id=false`. */
      readonly secretIdFile?: string;
    }
  | {
      readonly method: 'cert';
      readonly mount: string;
      /** Default: any role that the certificate fits. */
      readonly role?: string;
      /** PEM files of the client certificate and its key. */
      readonly certificate: string;
      readonly key: string;
    }
  | { readonly method: 'token'; readonly tokenFile: string };

export interface VaultLimits {
  /** For name look-up, TCP and TLS together, in milliseconds. Default 5,000. */
  readonly connectMs: number;
  /** For a whole request, in milliseconds. Default 15,000. */
  readonly answerMs: number;
  /** Largest answer. Default 1 MiB. */
  readonly bytes: number;
}

export const DEFAULT_LIMITS: VaultLimits = { connectMs: 5_000, answerMs: 15_000, bytes: 1_048_576 };
