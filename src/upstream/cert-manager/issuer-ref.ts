/** Which issuer of the cluster signs. */
export interface IssuerRef {
  readonly name: string;
  /** `Issuer`, `ClusterIssuer`, or the kind of an external one. */
  readonly kind: string;
  /** `cert-manager.io`, or the group of an external one. */
  readonly group: string;
}

/** For texts: `Issuer signet`. */
export function issuerText({ name, kind, group }: IssuerRef): string {
  return group === 'cert-manager.io' ? `${kind} ${name}` : `${kind}.${group} ${name}`;
}
