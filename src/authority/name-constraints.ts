import { derElement, readElements } from './der.ts';

/** Whether a CA certificate names the trust domain that it may sign for (RFC 5280 §4.2.1.10). */
export type NameConstraint = 'none' | 'uri';

const SEQUENCE = 0x30;
const PERMITTED = 0xa0;
const EXCLUDED = 0xa1;
const DIRECTORY_NAME = 0xa4;
const URI = 0x86;

interface Subtree {
  /** The tag of the GeneralName (RFC 5280 §4.2.1.6). */
  readonly tag: number;
  readonly value: Buffer;
}

/** The subtrees of one certificate. */
export interface NameConstraints {
  readonly permitted: readonly Subtree[];
  readonly excluded: readonly Subtree[];
}

/** The value of an extension that permits URIs whose host is exactly `host`, and leaves names of other kinds free. */
export function permittingUriHost(host: string): Buffer {
  const subtree = derElement(SEQUENCE, derElement(URI, Buffer.from(host, 'ascii')));
  return derElement(SEQUENCE, derElement(PERMITTED, subtree));
}

/** @throws RangeError when `value` is not DER. */
export function readNameConstraints(value: Buffer): NameConstraints {
  const lists = readElements(value).flatMap(({ content }) => readElements(content));
  const subtrees = (tag: number): Subtree[] =>
    lists
      .filter((list) => list.tag === tag)
      .flatMap(({ content }) => readElements(content))
      .flatMap((subtree) => baseOf(subtree.content));
  return { permitted: subtrees(PERMITTED), excluded: subtrees(EXCLUDED) };
}

/** The hosts of the URIs that are permitted, or undefined when URIs are not limited. */
export function permittedUriHosts({ permitted }: NameConstraints): readonly string[] | undefined {
  const hosts = permitted.filter(({ tag }) => tag === URI).map(({ value }) => value.toString('latin1'));
  return hosts.length === 0 ? undefined : hosts;
}

/** Why a node CA of `trustDomain` and its leaves would break `constraints`, or undefined. */
export function constraintProblem(constraints: NameConstraints, trustDomain: string): string | undefined {
  const hosts = permittedUriHosts(constraints);
  if (hosts !== undefined && !hosts.some((host) => isPermitted(trustDomain, host.toLowerCase()))) {
    return `its name constraints permit URIs of ${hosts.join(', ')} and not of ${trustDomain}`;
  }
  const excluded = constraints.excluded.filter(({ tag }) => tag === URI).map(({ value }) => value.toString('latin1'));
  const hit = excluded.find((host) => isExcluded(trustDomain, host.toLowerCase()));
  if (hit !== undefined) return `its name constraints exclude URIs of ${hit || 'every host'}`;
  if ([...constraints.permitted, ...constraints.excluded].some(({ tag }) => tag === DIRECTORY_NAME)) {
    return 'its name constraints are about subject names, which node CAs choose for themselves';
  }
  return undefined;
}

/** By the strictest reading: a host without leading dot is that host alone (RFC 5280 §4.2.1.10, as OpenSSL has it). */
function isPermitted(trustDomain: string, host: string): boolean {
  return host === trustDomain || (host.startsWith('.') && trustDomain.endsWith(host));
}

/** By the widest reading: some verifiers take a host for all below it. */
function isExcluded(trustDomain: string, host: string): boolean {
  const bare = host.replace(/^\./, '');
  return bare === '' || trustDomain === bare || trustDomain.endsWith(`.${bare}`);
}

function baseOf(subtree: Buffer): Subtree[] {
  const [base] = readElements(subtree);
  return base === undefined ? [] : [{ tag: base.tag, value: base.content }];
}
