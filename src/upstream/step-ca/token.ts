import { createHash, type KeyObject } from 'node:crypto';
import { SignJWT, type JWTHeaderParameters } from 'jose';
import { messageOf } from '../../errors.ts';
import type { Random } from '../../random.ts';
import { UpstreamError } from '../wire/upstream-error.ts';
import type { Credential } from './credential.ts';
import type { StepCaProvisioner } from './step-ca-options.ts';

export interface TokenAsked {
  readonly provisioner: StepCaProvisioner;
  readonly credential: Credential;
  /** `https://ca:9000/1.0/sign` */
  readonly audience: string;
  /** The one name that may be signed. */
  readonly subject: string;
  /** DER of the one request that it is good for. */
  readonly csr: Buffer;
  /** By the clock of the CA, milliseconds since the Unix epoch. */
  readonly now: number;
}

/** The CA allows a minute more. A token is used at once, and once. */
const LIFE_S = 120;

/**
 * A token with which step-ca signs one certificate, for this request only.
 *
 * @throws UpstreamError `login` for a key with which there are no tokens.
 */
export async function oneTimeToken(asked: TokenAsked, random: Random): Promise<string> {
  try {
    return await signed(asked, random);
  } catch (error) {
    throw error instanceof UpstreamError ? error : new UpstreamError('login', `no token can be signed with the key of the provisioner ${asked.provisioner.name}: ${messageOf(error)}`, { cause: error });
  }
}

function signed(asked: TokenAsked, random: Random): Promise<string> {
  const { provisioner, credential, audience, subject, csr, now } = asked;
  const seconds = Math.floor(now / 1000);
  const fingerprint = createHash('sha256').update(csr).digest('base64url');
  return new SignJWT({ sans: [subject], cnf: { 'x5rt#S256': fingerprint } })
    .setProtectedHeader(headerOf(credential))
    .setIssuer(provisioner.name)
    // The fragment names the provisioner where no key ID does.
    .setAudience(provisioner.type === 'x5c' ? `${audience}#x5c/${encodeURIComponent(provisioner.name)}` : audience)
    .setSubject(subject)
    .setJti(random.bytes(32).toString('hex'))
    .setIssuedAt(seconds)
    .setNotBefore(seconds)
    .setExpirationTime(seconds + LIFE_S)
    .sign(credential.privateKey);
}

function headerOf({ privateKey, keyId, chain }: Credential): JWTHeaderParameters {
  const header = { alg: algorithmOf(privateKey), typ: 'JWT' };
  return { ...header, ...(keyId === undefined ? {} : { kid: keyId }), ...(chain === undefined ? {} : { x5c: chain.map((der) => der.toString('base64')) }) };
}

const CURVES: Readonly<Record<string, string>> = { prime256v1: 'ES256', secp384r1: 'ES384', secp521r1: 'ES512' };

function algorithmOf({ asymmetricKeyType: type, asymmetricKeyDetails: details }: KeyObject): string {
  if (type === 'rsa') return 'RS256';
  if (type === 'ed25519') return 'EdDSA';
  const algorithm = type === 'ec' ? CURVES[details?.namedCurve ?? ''] : undefined;
  if (algorithm === undefined) throw new UpstreamError('login', `the key of the provisioner is of the type ${type} ${details?.namedCurve ?? ''}, with which step-ca takes no token`);
  return algorithm;
}
