import { X509Certificate } from 'node:crypto';
import * as v from 'valibot';
import { messageOf, SignetError } from '../errors.ts';
import { idOfTrustDomain, type TrustDomain } from '../spiffe/id.ts';
import { issuerFrom, type Issuer } from './certificate.ts';
import { formatJwtKey, JwtKeyText, moment, Moment, privateKeyPem, readJwtKey, readTaint, taintText, type JwtSigningKey } from './jwt-signing-key.ts';
import { keyPairFromPem } from './keys.ts';
import type { Kept } from './tainted.ts';

export interface X509Root extends Issuer, Kept {}

/** All that the embedded authority must not forget. */
export interface EmbeddedState {
  readonly x509: readonly X509Root[];
  readonly jwt: readonly JwtSigningKey[];
}

const StateText = v.strictObject({
  version: v.literal(1),
  trustDomain: v.string(),
  x509: v.array(v.strictObject({ certificate: v.string(), privateKey: v.string(), activatesAt: Moment, taintedAt: v.optional(Moment) })),
  jwt: v.array(JwtKeyText),
});

export function formatState(state: EmbeddedState, trustDomain: TrustDomain): string {
  const text: v.InferOutput<typeof StateText> = {
    version: 1,
    trustDomain,
    x509: state.x509.map((root) => ({
      certificate: new X509Certificate(root.certificate).toString(),
      privateKey: privateKeyPem(root.privateKey),
      activatesAt: moment(root.activatesAt),
      ...taintText(root),
    })),
    jwt: state.jwt.map(formatJwtKey),
  };
  return `${JSON.stringify(text, null, 2)}\n`;
}

/**
 * Reads the state again, and believes nothing of it: keys must belong to their certificates, and all to this trust domain.
 *
 * @throws SignetError `state_refused` saying what to do; the file is never changed for it.
 */
export function parseState(text: string, trustDomain: TrustDomain, path: string): EmbeddedState {
  try {
    const state = v.parse(StateText, JSON.parse(text));
    if (state.trustDomain !== trustDomain) throw new Error(`it belongs to the trust domain ${JSON.stringify(state.trustDomain)}, and this agent serves "${trustDomain}"`);
    return { x509: state.x509.map((root) => readRoot(root, trustDomain)), jwt: state.jwt.map(readJwtKey) };
  } catch (error) {
    throw new SignetError(
      'state_refused',
      `${path} is damaged or foreign: ${messageOf(error)}. What to do: restore it from a backup, or move it away to start with a new CA (workloads then get new trust bundles).`,
      { cause: error },
    );
  }
}

function readRoot(text: v.InferOutput<typeof StateText>['x509'][number], trustDomain: TrustDomain): X509Root {
  const certificate = new X509Certificate(text.certificate);
  const id = idOfTrustDomain(trustDomain);
  if (certificate.subjectAltName !== `URI:${id}`) throw new Error(`the CA certificate is for ${certificate.subjectAltName} and not for URI:${id} (X509-SVID §3.2)`);
  if (!certificate.verify(certificate.publicKey)) throw new Error('the CA certificate is not self-signed');
  return { ...issuerFrom(certificate.raw, keyPairFromPem(text.privateKey)), activatesAt: Date.parse(text.activatesAt), ...readTaint(text) };
}
