import type { WireLimits } from '../wire/limits.ts';

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

export type VaultLimits = WireLimits;
