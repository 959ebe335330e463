import { SignetError } from '../errors.ts';

/** A fact about a caller, `<type>:<key>:<value>`: `unix:uid:1000`. Compared as text, case-sensitively. */
export type Selector = string;

/** The keys that each attestor can yield. */
export const SELECTOR_KEYS: Readonly<Record<string, readonly string[]>> = {
  unix: ['uid', 'user', 'gid', 'group', 'supplementary_gid', 'supplementary_group', 'path', 'sha256'],
  k8s: [
    'ns',
    'sa',
    'pod-name',
    'pod-uid',
    'pod-label',
    'pod-owner',
    'pod-owner-uid',
    'node-name',
    'container-name',
    'container-image',
    'pod-image',
    'pod-image-count',
    'pod-init-image',
    'pod-init-image-count',
  ],
};

/** Keys whose value has two parts: `k8s:pod-label:<label>:<value>`, `k8s:pod-owner:<Kind>:<name>`. */
const TWO_PARTS = new Set(['pod-label', 'pod-owner', 'pod-owner-uid']);

/** Keys that an `exec` after connecting can change, so that they only narrow a selector by uid (or user). */
const NARROWING = new Set(['unix:path', 'unix:sha256']);

/**
 * Checks the form of one selector.
 *
 * @throws SignetError `invalid_selector` with what is allowed.
 */
export function parseSelector(text: string): Selector {
  const [type = '', key = '', ...rest] = text.split(':');
  const keys = Object.hasOwn(SELECTOR_KEYS, type) ? SELECTOR_KEYS[type] : undefined;
  if (keys === undefined) throw invalid(text, `the type is one of ${Object.keys(SELECTOR_KEYS).join(', ')}`);
  if (!keys.includes(key)) throw invalid(text, `a ${type} selector is one of ${keys.map((name) => `${type}:${name}:…`).join(', ')}`);
  const value = rest.join(':');
  if (value === '') throw invalid(text, 'it has no value');
  if (/(?:^|_)[ug]id$/.test(key) && !isId(value)) throw invalid(text, `its value is a decimal number of at most ${LARGEST_ID}`);
  if (key === 'sha256' && !/^[0-9a-f]{64}$/.test(value)) throw invalid(text, 'its value is 64 hexadecimal digits in lower case');
  if (key === 'path' && !value.startsWith('/')) throw invalid(text, 'its value is an absolute path');
  if (TWO_PARTS.has(key) && !/^[^:]+:/.test(value)) throw invalid(text, `its value has two parts: ${type}:${key}:<${key === 'pod-label' ? 'label' : 'Kind'}>:<value>`);
  if (key.endsWith('-count') && !/^(?:0|[1-9][0-9]{0,5})$/.test(value)) throw invalid(text, 'its value is a decimal number');
  return text;
}

const POD_UID = 'k8s:pod-uid:';

/** The selector that a caller in this pod has and nobody else: an entry with it belongs to the pod. */
export function podUidSelector(uid: string): Selector {
  return `${POD_UID}${uid}`;
}

/** The pod that such a caller is in, or such an entry belongs to; undefined where it is none. */
export function podUidOf(selectors: readonly Selector[]): string | undefined {
  return selectors.find((selector) => selector.startsWith(POD_UID))?.slice(POD_UID.length);
}

/** The largest user or group ID; one more stands for none. */
const LARGEST_ID = 2 ** 32 - 2;

function isId(value: string): boolean {
  return /^(?:0|[1-9][0-9]{0,9})$/.test(value) && Number(value) <= LARGEST_ID;
}

/** True for a selector that may only be used next to one that the kernel vouches for. */
export function isNarrowing(selector: Selector): boolean {
  const [type, key] = selector.split(':', 2);
  return NARROWING.has(`${type}:${key}`);
}

function invalid(text: string, rule: string): SignetError {
  return new SignetError('invalid_selector', `${JSON.stringify(text)} is not a selector: ${rule}`);
}
