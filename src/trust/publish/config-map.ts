import { SignetError } from '../../errors.ts';
import type { KubernetesClient } from '../../kubernetes/api-client.ts';
import { hasStatus } from '../../kubernetes/api-error.ts';
import { objectAt, textAt, type JsonObject } from '../../kubernetes/json.ts';
import { apiVersionOf, namespacedPathOf, type Resource } from '../../kubernetes/resources.ts';
import type { TrustDomain } from '../../spiffe/id.ts';
import { jwtKeysIn, pemOf, rootsIn, spiffeOf, NOTHING, type PublicBundle } from './documents.ts';
import { FIELD_MANAGER, isOurField, metadataFor, trustDomainIn, type Place, type Standing } from './place.ts';

export interface ConfigMapOptions {
  readonly client: Pick<KubernetesClient, 'get' | 'apply'>;
  readonly trustDomain: TrustDomain;
  readonly namespace: string;
  readonly name: string;
  /** Key of the X.509 roots in PEM. */
  readonly pemKey: string;
  /** Key of the SPIFFE bundle, JWT keys included. */
  readonly spiffeKey: string;
  readonly refreshHintSeconds: number;
}

const CONFIG_MAPS: Resource = { name: 'configmaps', path: '/api/v1/configmaps' };

/**
 * The trust bundle in a ConfigMap. Other keys in it are left alone. One that somebody else has made is not taken over: a key that
 * another manager has written stays, and a ConfigMap of another trust domain too.
 */
export class ConfigMapPlace implements Place {
  readonly name: string;
  readonly #options: ConfigMapOptions;
  readonly #path: string;

  constructor(options: ConfigMapOptions) {
    this.#options = options;
    this.name = `ConfigMap ${options.namespace}/${options.name}`;
    this.#path = namespacedPathOf(CONFIG_MAPS, options.namespace, options.name);
  }

  async read(signal: AbortSignal): Promise<Standing> {
    const found = await this.#get(signal);
    const owner = trustDomainIn(found);
    const { trustDomain } = this.#options;
    if (owner !== '' && owner !== trustDomain) {
      const problem = `${this.name} has the bundle of ${owner}, not of ${trustDomain}`;
      throw new SignetError('in_use', `${problem}: delete it, or publish to another one`);
    }
    return {
      published: found === undefined ? NOTHING : this.#publishedIn(found),
      says: (bundle) => found !== undefined && owner === trustDomain && this.#says(found, bundle),
      replace: (bundle, replaceSignal) => this.#replace(found, bundle, replaceSignal),
    };
  }

  async #get(signal: AbortSignal): Promise<JsonObject | undefined> {
    try {
      return await this.#options.client.get(this.#path, { signal });
    } catch (error) {
      if (hasStatus(error, 404)) return undefined;
      throw error;
    }
  }

  #publishedIn(found: JsonObject): PublicBundle {
    const { pemKey, spiffeKey } = this.#options;
    const data = objectAt(found, 'data');
    return {
      roots: isOurField(found, 'data', pemKey) ? rootsIn(textAt(data, pemKey)) : [],
      jwtKeys: isOurField(found, 'data', spiffeKey) ? jwtKeysIn(textAt(data, spiffeKey)) : [],
    };
  }

  #says(found: JsonObject, bundle: PublicBundle): boolean {
    const data = objectAt(found, 'data');
    return Object.entries(this.#dataOf(bundle)).every(([key, text]) => data[key] === text);
  }

  #dataOf(bundle: PublicBundle): Record<string, string> {
    const { pemKey, spiffeKey, refreshHintSeconds } = this.#options;
    return { [pemKey]: pemOf(bundle), [spiffeKey]: spiffeOf(bundle, refreshHintSeconds) };
  }

  async #replace(found: JsonObject | undefined, bundle: PublicBundle, signal: AbortSignal): Promise<void> {
    const { client, name, namespace, trustDomain } = this.#options;
    const metadata = { ...metadataFor(name, trustDomain, found), namespace };
    const object = { apiVersion: apiVersionOf(CONFIG_MAPS), kind: 'ConfigMap', metadata, data: this.#dataOf(bundle) };
    // What an agent has made is put right again, whoever has changed it; all else belongs to who made it.
    const force = trustDomainIn(found) === trustDomain;
    await client.apply(this.#path, object, { fieldManager: FIELD_MANAGER, force, signal });
  }
}
