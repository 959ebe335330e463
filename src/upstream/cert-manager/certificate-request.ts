import { objectAt, objectsAt, textAt, type JsonObject } from '../../kubernetes/json.ts';
import { apiVersionOf, type Resource } from '../../kubernetes/resources.ts';
import { toPem } from '../../spiffe/pem.ts';
import { pendingFault, type CertManagerFault } from './cert-manager-error.ts';
import type { IssuerRef } from './issuer-ref.ts';

export const CERTIFICATE_REQUESTS: Resource = { name: 'certificaterequests', path: '/apis/cert-manager.io/v1/certificaterequests' };

/** On each request: which agent made it. Nobody else's are ever deleted. */
export const INSTANCE_LABEL = 'signet.dev/instance';
const NODE_ANNOTATION = 'signet.dev/node';

/** What is asked for. */
export interface Wanted {
  /** DER. */
  readonly csr: Buffer;
  /** In milliseconds; whole seconds of it are asked for. */
  readonly ttlMs: number;
  readonly isCA: boolean;
}

/** Whose request it is. */
export interface Owner {
  /** The name of the node, for people. */
  readonly node: string;
  /** Tells the agents of a cluster apart: at most 63 letters and digits. */
  readonly instance: string;
}

/** Those of the request's own key usage extension: cert-manager's webhook compares the two. */
const CA_USAGES = ['cert sign', 'crl sign'];
const LEAF_USAGES = ['digital signature', 'server auth', 'client auth'];

/** A CertificateRequest as the API server takes it. `metadata`: a name, and an owner perhaps. */
export function requestObject({ csr, ttlMs, isCA }: Wanted, issuerRef: IssuerRef, { node, instance }: Owner, metadata: JsonObject, namespace: string): JsonObject {
  return {
    apiVersion: apiVersionOf(CERTIFICATE_REQUESTS),
    kind: 'CertificateRequest',
    metadata: {
      ...metadata,
      namespace,
      labels: { 'app.kubernetes.io/managed-by': 'signet', [INSTANCE_LABEL]: instance },
      annotations: { [NODE_ANNOTATION]: node },
    },
    spec: {
      request: Buffer.from(toPem('CERTIFICATE REQUEST', csr)).toString('base64'),
      isCA,
      usages: isCA ? CA_USAGES : LEAF_USAGES,
      duration: `${Math.floor(ttlMs / 1_000)}s`,
      issuerRef,
    },
  };
}

/** PEM. */
export interface Issued {
  /** What was signed, then what may stand above it. */
  readonly certificate: string;
  /** What cert-manager takes for the CA: it may be absent, and is never believed for being here. */
  readonly ca: string;
}

/** How far a request is. `words`: what was said about it. */
export type Progress =
  | { readonly kind: 'issued'; readonly issued: Issued }
  | { readonly kind: 'over'; readonly fault: 'denied' | 'failed' | 'invalid_request' | 'malformed'; readonly words: string }
  | { readonly kind: 'waiting'; readonly fault: Waiting; readonly words: string };

/** What it would have failed with if nothing more happened. */
export type Waiting = Extract<CertManagerFault, 'not_approved' | 'not_taken' | 'no_issuer' | 'issuer_not_ready' | 'pending'>;

/** Far above any chain. */
const LARGEST_PEM = 65_536;
const LONGEST_WORDS = 400;

/** Reads the conditions of a request (cert-manager.io/v1 CertificateRequestStatus). Who denies or refuses it has the last word. */
export function progressOf(raw: JsonObject): Progress {
  const status = objectAt(raw, 'status');
  const conditions = objectsAt(status, 'conditions');
  const find = (type: string): JsonObject | undefined => conditions.find((one) => textAt(one, 'type') === type);
  const isTrue = (condition: JsonObject | undefined): boolean => condition !== undefined && textAt(condition, 'status') === 'True';
  const [approved, denied, invalid, ready] = ['Approved', 'Denied', 'InvalidRequest', 'Ready'].map(find);
  if (isTrue(denied)) return { kind: 'over', fault: 'denied', words: wordsOf(denied) };
  if (isTrue(invalid)) return { kind: 'over', fault: 'invalid_request', words: wordsOf(invalid) };
  if (isTrue(ready)) return issuedIn(status);
  const reason = textAt(ready ?? {}, 'reason');
  if (reason === 'Denied') return { kind: 'over', fault: 'denied', words: wordsOf(ready) };
  if (reason === 'Failed') return { kind: 'over', fault: 'failed', words: wordsOf(ready) };
  if (ready !== undefined) return { kind: 'waiting', fault: pendingFault(wordsOf(ready)) as Waiting, words: wordsOf(ready) };
  return { kind: 'waiting', fault: isTrue(approved) ? 'not_taken' : 'not_approved', words: '' };
}

function issuedIn(status: JsonObject): Progress {
  const [certificate, ca] = [decoded(status, 'certificate'), decoded(status, 'ca')];
  if (certificate === '') return { kind: 'over', fault: 'malformed', words: 'it is Ready, and holds no certificate' };
  if (certificate.length + ca.length > LARGEST_PEM) return { kind: 'over', fault: 'malformed', words: `its certificates have ${certificate.length + ca.length} bytes, more than ${LARGEST_PEM}` };
  return { kind: 'issued', issued: { certificate, ca } };
}

function decoded(status: JsonObject, key: string): string {
  return Buffer.from(textAt(status, key), 'base64').toString('latin1');
}

/** One printable line. */
function wordsOf(condition: JsonObject | undefined): string {
  const words = [textAt(condition ?? {}, 'reason'), textAt(condition ?? {}, 'message')].filter(Boolean).join(': ');
  return words.replaceAll(/[\s\p{Cc}]+/gu, ' ').trim().slice(0, LONGEST_WORDS);
}
