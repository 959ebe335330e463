import type { WireLimits } from '../wire/limits.ts';

/** Where step-ca is, how it is known, and how to prove ourselves to it. */
export interface StepCaOptions {
  /** `https:`, without path. */
  readonly address: URL;
  /** The name that the server's certificate must be for, where it is not the one in `address`. */
  readonly serverName?: string;
  readonly pin: StepCaPin;
  readonly provisioner: StepCaProvisioner;
  readonly limits?: Partial<WireLimits>;
}

/** What the server is known by. There is no trust on first use. */
export type StepCaPin =
  /** PEM file with the only roots that are believed; read again when it changes. */
  | { readonly caFile: string }
  /** SHA-256 of a root in DER, 64 hexadecimal digits. The root comes from the server, and so do its successors. */
  | { readonly fingerprint: string };

/** Who tells step-ca to sign. All files are read anew for each token. */
export type StepCaProvisioner = JwkProvisioner | X5cProvisioner;

export interface JwkProvisioner {
  readonly type: 'jwk';
  readonly name: string;
  /** The private key as PEM, JWK or JWE. Default: the encrypted one that step-ca keeps for the provisioner. */
  readonly key?: string;
  /** What opens an encrypted key. */
  readonly passwordFile?: string;
}

export interface X5cProvisioner {
  readonly type: 'x5c';
  readonly name: string;
  /** PEM: a certificate under the roots of the provisioner, then what lies between. */
  readonly certificate: string;
  readonly key: string;
  /** What opens an encrypted key. */
  readonly passwordFile?: string;
}
