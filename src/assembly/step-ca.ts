import { profileProblem, readCa } from '../authority/ca-certificate.ts';
import { extension, TAG } from '../authority/certificate-form.ts';
import { derElement } from '../authority/der.ts';
import type { StepCaConfig, StepCaProvisionerConfig } from '../config/config.ts';
import { SignetError } from '../errors.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { StepCaClient } from '../upstream/step-ca/client.ts';
import { StepCaIntermediate } from '../upstream/step-ca/intermediate.ts';
import type { StepCaOptions, StepCaProvisioner } from '../upstream/step-ca/step-ca-options.ts';
import type { Upstream } from '../upstream/upstream.ts';
import type { RoomTools } from './tools.ts';

/** step-ca's own extension, in which it writes which provisioner has had a certificate made, and the type of a JWK provisioner. */
const PROVISIONER_OID = '1.3.6.1.4.1.37476.9000.64.1';
const JWK_TYPE = 1;

/**
 * A mark for leaves below step-ca: it renews whatever stands below its root and bears no mark for who has it and its key, without a token,
 * so that a workload could keep its identity for ever. One that names a provisioner which is not there it refuses.
 */
export const notToBeRenewed: Buffer = extension(PROVISIONER_OID, false, derElement(
  TAG.sequence, derElement(TAG.integer, Buffer.of(JWK_TYPE)), derElement(TAG.octetString, Buffer.from('leaf of a Signet node: not to be renewed here')), derElement(TAG.octetString),
));

/** Judges what can be judged before anything is opened. @throws SignetError `state_refused` */
export function checkStepCa({ roots }: StepCaConfig): Promise<void> {
  return StepCaIntermediate.check({ roots });
}

/** Node CAs from the smallstep CA that the configuration names. */
export function openStepCa(trustDomain: TrustDomain, config: StepCaConfig, tools: RoomTools, opened: AsyncDisposableStack): Upstream {
  const client = new StepCaClient(optionsOf(config), tools);
  opened.defer(() => client.close());
  const judgeRoot = (root: Buffer): string | undefined => profileProblem(readCa(root), trustDomain)?.what;
  const upstream = new StepCaIntermediate({ roots: config.roots, renew: config.renew }, { ...tools, client, judgeRoot });
  opened.defer(() => upstream.close());
  return upstream;
}

function optionsOf({ address, serverName, caFile, fingerprint, provisioner }: StepCaConfig): StepCaOptions {
  const pin = caFile === undefined ? { fingerprint: given('fingerprint', fingerprint) } : { caFile };
  return { address: new URL(address), ...(serverName === undefined ? {} : { serverName }), pin, provisioner: provisionerOf(provisioner) };
}

function provisionerOf({ type, name, key, passwordFile, certificate }: StepCaProvisionerConfig): StepCaProvisioner {
  const password = passwordFile === undefined ? {} : { passwordFile };
  if (type === 'jwk') return { type, name, ...(key === undefined ? {} : { key }), ...password };
  return { type, name, certificate: given('provisioner.certificate', certificate), key: given('provisioner.key', key), ...password };
}

/** The configuration has been judged already. */
function given(name: string, value: string | undefined): string {
  if (value === undefined) throw new SignetError('invalid_config', `authority.stepCa.${name} is not set`);
  return value;
}
