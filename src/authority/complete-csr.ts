import type { Random } from '../random.ts';
import { idOfTrustDomain, type TrustDomain } from '../spiffe/id.ts';
import { basicConstraints, extension, KEY_USAGE, keyUsage, nameElement, OID, requestInfo, subjectAltName } from './certificate-form.ts';
import { spkiOf } from './certificate.ts';
import type { KeyPair } from './keys.ts';
import { permittingUriHost, type NameConstraint } from './name-constraints.ts';
import { signed } from './signature.ts';

/**
 * A PKCS #10 request in DER for a node CA, in which everything stands that its certificate should have (RFC 2986; RFC 5280 §4.2.1):
 * for a CA that has no other way to be told. Some take nothing of the subject but the common name, so that there is one.
 */
export function createCompleteCsr(keys: KeyPair, wanted: { trustDomain: TrustDomain; nameConstraint: NameConstraint }, random: Random): Promise<Buffer> {
  const serial = Buffer.from(random.bytes(8)).toString('hex');
  const extensions = [basicConstraints(true, 0), keyUsage(KEY_USAGE.keyCertSign | KEY_USAGE.crlSign), subjectAltName(idOfTrustDomain(wanted.trustDomain), [])];
  if (wanted.nameConstraint === 'uri') extensions.push(extension(OID.nameConstraints, true, permittingUriHost(wanted.trustDomain)));
  // A distinct name for each node CA keeps path builders from trying the wrong one.
  const name = nameElement([OID.commonName, `Signet node CA ${serial}`], [OID.organization, 'Signet'], [OID.organizationalUnit, 'Node CA']);
  return signed(requestInfo(name, spkiOf(keys.publicKey), extensions), keys.privateKey);
}
