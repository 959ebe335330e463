/**
 * A path of Vault's API below `/v1/`, percent-encoded. A mount may have several parts (`team/pki`); a segment is one, whatever is in
 * it.
 */
export function pathOf(mount: string, ...segments: readonly string[]): string {
  const parts = mount.split('/').filter((part) => part !== '');
  return [...parts, ...segments].map(encodeURIComponent).join('/');
}
