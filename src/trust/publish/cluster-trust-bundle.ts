import type { Clock } from '../../clock.ts';
import { SignetError } from '../../errors.ts';
import type { KubernetesClient } from '../../kubernetes/api-client.ts';
import { hasStatus } from '../../kubernetes/api-error.ts';
import { objectAt, objectsAt, textAt, type JsonObject } from '../../kubernetes/json.ts';
import { apiVersionOf, pathOf, type Resource } from '../../kubernetes/resources.ts';
import type { TrustDomain } from '../../spiffe/id.ts';
import { NOTHING, pemOf, rootsIn, type PublicBundle } from './documents.ts';
import { FIELD_MANAGER, isOurField, metadataFor, trustDomainIn, type Place, type Standing } from './place.ts';

export interface ClusterTrustBundleOptions {
  readonly client: Pick<KubernetesClient, 'get' | 'apply'>;
  readonly trustDomain: TrustDomain;
  readonly clock: Clock;
}

const GROUP = '/apis/certificates.k8s.io';
const PLURAL = 'clustertrustbundles';
/** The newest first. A cluster has the kind only where it was switched on. */
const VERSIONS = ['v1beta1', 'v1alpha1'] as const;
/** How often a cluster without the kind is asked again, and one with it whether it still is the same version. */
const DISCOVERY_MS = 600_000;
/** Labels of RFC 1123, as Kubernetes wants them in the name of a signer; SPIFFE allows more. */
const LONGEST_SIGNER_PATH = 253;
const SIGNER_PATH = /^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/;

/** Who stands for the roots: `signet.dev/example.org`. Writing them takes the verb `attest` on this signer. */
export function signerNameOf(trustDomain: TrustDomain): string {
  return `signet.dev/${trustDomain}`;
}

/** The object's name: `signet.dev:example.org:bundle`. */
export function clusterTrustBundleNameOf(trustDomain: TrustDomain): string {
  return `signet.dev:${trustDomain}:bundle`;
}

/** Why the roots of a trust domain cannot be in a ClusterTrustBundle; undefined when they can. */
export function clusterTrustBundleProblem(trustDomain: TrustDomain): string | undefined {
  if (SIGNER_PATH.test(trustDomain) && trustDomain.length <= LONGEST_SIGNER_PATH) return undefined;
  const allowed = `at most ${LONGEST_SIGNER_PATH} characters: labels of a-z, 0-9 and "-" inside, joined by "."`;
  return `${trustDomain} cannot be the name of a signer in Kubernetes, which has ${allowed}`;
}

/** The X.509 roots in a ClusterTrustBundle (certificates.k8s.io), where the cluster has that kind. */
export class ClusterTrustBundlePlace implements Place {
  readonly name: string;
  readonly #options: ClusterTrustBundleOptions;
  #discovered: { readonly resource: Resource | undefined; readonly at: number } | undefined;

  constructor(options: ClusterTrustBundleOptions) {
    this.#options = options;
    this.name = `ClusterTrustBundle ${clusterTrustBundleNameOf(options.trustDomain)}`;
  }

  async read(signal: AbortSignal): Promise<Standing | undefined> {
    const { trustDomain } = this.#options;
    const problem = clusterTrustBundleProblem(trustDomain);
    if (problem !== undefined) throw new SignetError('invalid_config', problem);
    const resource = await this.#resource(signal);
    if (resource === undefined) return undefined;
    const found = await this.#get(resource, signal);
    return {
      published: found === undefined ? NOTHING : publishedIn(found),
      says: (bundle) => found !== undefined && trustDomainIn(found) === trustDomain && textOf(found) === pemOf(bundle),
      replace: (bundle, replaceSignal) => this.#replace(resource, found, bundle, replaceSignal),
    };
  }

  async #resource(signal: AbortSignal): Promise<Resource | undefined> {
    const now = this.#options.clock.monotonic();
    if (this.#discovered !== undefined && now - this.#discovered.at < DISCOVERY_MS) return this.#discovered.resource;
    const resource = await this.#discover(signal);
    this.#discovered = { resource, at: now };
    return resource;
  }

  async #discover(signal: AbortSignal): Promise<Resource | undefined> {
    for (const version of VERSIONS) {
      const list = await this.#orNothing(`${GROUP}/${version}`, signal);
      const isThere = objectsAt(list ?? {}, 'resources').some((resource) => textAt(resource, 'name') === PLURAL);
      if (isThere) return { name: PLURAL, path: `${GROUP}/${version}/${PLURAL}` };
    }
    return undefined;
  }

  #get(resource: Resource, signal: AbortSignal): Promise<JsonObject | undefined> {
    return this.#orNothing(pathOf(resource, clusterTrustBundleNameOf(this.#options.trustDomain)), signal);
  }

  async #orNothing(path: string, signal: AbortSignal): Promise<JsonObject | undefined> {
    try {
      return await this.#options.client.get(path, { signal });
    } catch (error) {
      if (hasStatus(error, 404)) return undefined;
      throw error;
    }
  }

  async #replace(resource: Resource, found: JsonObject | undefined, bundle: PublicBundle, signal: AbortSignal): Promise<void> {
    const { client, trustDomain } = this.#options;
    const name = clusterTrustBundleNameOf(trustDomain);
    const spec = { signerName: signerNameOf(trustDomain), trustBundle: pemOf(bundle) };
    const metadata = metadataFor(name, trustDomain, found);
    const object = { apiVersion: apiVersionOf(resource), kind: 'ClusterTrustBundle', metadata, spec };
    try {
      // Whoever else writes under this signer is mistaken.
      await client.apply(pathOf(resource, name), object, { fieldManager: FIELD_MANAGER, force: true, signal });
    } catch (error) {
      // The version that was discovered is no more.
      if (hasStatus(error, 404)) this.#discovered = undefined;
      throw error;
    }
  }
}

function publishedIn(found: JsonObject): PublicBundle {
  return { roots: isOurField(found, 'spec', 'trustBundle') ? rootsIn(textOf(found)) : [], jwtKeys: [] };
}

function textOf(found: JsonObject): string {
  return textAt(objectAt(found, 'spec'), 'trustBundle');
}
