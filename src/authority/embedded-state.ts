import { X509Certificate } from 'node:crypto';
import * as v from 'valibot';
import { messageOf, SignetError } from '../errors.ts';
import { idOfTrustDomain, type TrustDomain } from '../spiffe/id.ts';
import { issuerFrom, type Issuer } from './certificate.ts';
import type { JwtKey } from './jwt-signer.ts';
import { jwtAuthority, keyPairFromPem, pkcs8 } from './keys.ts';
import type { Rotating } from './rotation.ts';

export interface X509Root extends Issuer, Rotating {}
export interface JwtSigningKey extends JwtKey, Rotating {}

/** All that the embedded authority must not forget. */
export interface EmbeddedState {
  readonly x509: readonly X509Root[];
  readonly jwt: readonly JwtSigningKey[];
}

const Moment = v.pipe(v.string(), v.isoTimestamp());
const StateText = v.strictObject({
  version: v.literal(1),
  trustDomain: v.string(),
  x509: v.array(v.strictObject({ certificate: v.string(), privateKey: v.string(), activatesAt: Moment })),
  jwt: v.array(v.strictObject({ privateKey: v.string(), notBefore: Moment, notAfter: Moment, activatesAt: Moment })),
});

export function formatState(state: EmbeddedState, trustDomain: TrustDomain): string {
  const text: v.InferOutput<typeof StateText> = {
    version: 1,
    trustDomain,
    x509: state.x509.map((root) => ({
      certificate: new X509Certificate(root.certificate).toString(),
      privateKey: pem(root),
      activatesAt: moment(root.activatesAt),
    })),
    jwt: state.jwt.map((key) => ({
      privateKey: pem(key),
      notBefore: moment(key.notBefore),
      notAfter: moment(key.notAfter),
      activatesAt: moment(key.activatesAt),
    })),
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
  return { ...issuerFrom(certificate.raw, keyPairFromPem(text.privateKey)), activatesAt: Date.parse(text.activatesAt) };
}

function readJwtKey(text: v.InferOutput<typeof StateText>['jwt'][number]): JwtSigningKey {
  const keys = keyPairFromPem(text.privateKey);
  if (keys.privateKey.asymmetricKeyDetails?.namedCurve !== 'prime256v1') throw new Error('a JWT key is not an EC key on P-256');
  return {
    ...keys,
    kid: jwtAuthority(keys.publicKey).kid,
    notBefore: Date.parse(text.notBefore),
    notAfter: Date.parse(text.notAfter),
    activatesAt: Date.parse(text.activatesAt),
  };
}

function pem(keys: { readonly privateKey: Issuer['privateKey'] }): string {
  return `-----BEGIN PRIVATE KEY-----\n${pkcs8(keys.privateKey).toString('base64').replace(/.{64}/g, '$&\n').trimEnd()}\n-----END PRIVATE KEY-----\n`;
}

function moment(ms: number): string {
  return new Date(ms).toISOString();
}
