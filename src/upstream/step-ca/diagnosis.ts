import { createPublicKey, X509Certificate } from 'node:crypto';
import { objectAt, textAt, type JsonObject } from '../../kubernetes/json.ts';
import { readPem } from '../../spiffe/pem.ts';
import { chainUp } from '../wire/chain.ts';
import { noSuchProvisioner, thumbprintOf, type Credential } from './credential.ts';
import type { StepCaProvisioner } from './step-ca-options.ts';

export interface RefusedParts {
  readonly provisioner: StepCaProvisioner;
  readonly credential: Credential;
  /** The provisioner as step-ca tells it; undefined when it has none, `unknown` when it does not say. */
  readonly found: JsonObject | undefined | 'unknown';
  readonly audience: string;
  /** What is wrong with the own clock, if anything. */
  readonly lag: string | undefined;
}

/** step-ca answers all faults of a token alike. What it tells everybody about its provisioners says which one it was. */
export async function refusedToken(refusal: string, parts: RefusedParts): Promise<string> {
  const { provisioner, found, audience, lag } = parts;
  const known = found === undefined ? noSuchProvisioner(provisioner.name) : found === 'unknown' ? undefined : await mismatch(found, parts);
  const more = lag === undefined ? '' : ` ${lag[0]?.toUpperCase()}${lag.slice(1)}`;
  if (known !== undefined) return `step-ca refuses the token: ${known}.${more}`;
  const names = `authority.stepCa.address or serverName is none of the dnsNames of step-ca (the token says ${audience})`;
  const seen = found === 'unknown' ? 'What it has for a provisioner cannot be read' : 'Provisioner and key are as they should be';
  return `${refusal}: step-ca refuses the token and does not say why.${more === '' ? ` ${seen}. Perhaps ${names}` : more}. Its log has more`;
}

async function mismatch(found: JsonObject, { provisioner, credential }: RefusedParts): Promise<string | undefined> {
  const { name, type } = provisioner;
  const kind = textAt(found, 'type');
  if (kind.toLowerCase() !== type) return `the provisioner ${name} is of the type ${kind} and not ${type.toUpperCase()}. What to do: set authority.stepCa.provisioner to one that gives node CAs`;
  return provisioner.type === 'jwk' ? keyMismatch(found, name, credential, provisioner.key) : rootMismatch(found, name, credential, provisioner.certificate);
}

async function keyMismatch(found: JsonObject, name: string, { privateKey, keyId }: Credential, file: string | undefined): Promise<string | undefined> {
  const key = objectAt(found, 'key');
  const where = file ?? 'place of the old one';
  const remedy = `What to do: put the private key of the provisioner in ${where}`;
  const theirs = textAt(key, 'kid');
  if (!(await isSameKey(key, privateKey))) return `the provisioner ${name} has another key (${theirs}) than ${file ?? 'ours'} (${keyId}): it was replaced. ${remedy}`;
  if (theirs !== keyId) return `the provisioner ${name} knows its key as ${theirs}, and not as ${keyId}. What to do: add "kid": "${theirs}" to the JWK in ${where}`;
  return undefined;
}

async function isSameKey(jwk: JsonObject, privateKey: Credential['privateKey']): Promise<boolean> {
  try {
    const theirs = createPublicKey({ key: jwk as Record<string, string>, format: 'jwk' });
    return (await thumbprintOf(theirs)) === (await thumbprintOf(createPublicKey(privateKey)));
  } catch {
    return false;
  }
}

function rootMismatch(found: JsonObject, name: string, { chain = [] }: Credential, file: string): string | undefined {
  const [leaf, ...between] = chain;
  const roots = rootsOf(found);
  if (leaf === undefined || roots === undefined || chainUp(leaf, between, roots) !== undefined) return undefined;
  const subjects = roots.map((der) => new X509Certificate(der).subject.replaceAll('\n', ', ')).join('; ');
  return `the certificate in ${file} is not under the roots of the provisioner ${name} (${subjects}). What to do: put one there that is, with what lies between behind it`;
}

/** Base64 of PEM. */
function rootsOf(found: JsonObject): readonly Buffer[] | undefined {
  try {
    const ders = readPem(Buffer.from(textAt(found, 'roots'), 'base64').toString('utf8')).map(({ der }) => new X509Certificate(der).raw);
    return ders.length === 0 ? undefined : ders;
  } catch {
    return undefined;
  }
}
