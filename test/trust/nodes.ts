import type { ExecutionContext } from 'ava';
import { signNodeKeys, verifyNodeKeys } from '../../src/authority/node-key-set.ts';
import type { Clock } from '../../src/clock.ts';
import type { JsonObject } from '../../src/kubernetes/json.ts';
import { NODE_KEY_SETS, pathOf, type Resource } from '../../src/kubernetes/resources.ts';
import { createLog } from '../../src/log.ts';
import type { TrustBundle } from '../../src/spiffe/bundle.ts';
import type { BundleSource } from '../../src/spiffe/signing.ts';
import { ClusterJwtKeys, type ClusterJwtKeysOptions } from '../../src/trust/cluster-jwt-keys.ts';
import { JwtKeyPublisher, type JwtKeyPublisherOptions, type KeySetSigner, type OwnJwtKeys } from '../../src/trust/jwt-key-publisher.ts';
import { MemoryApi } from '../registration/status/memory-api.ts';
import type { TestCa } from '../support/authorities.ts';
import { exampleOrg, INSTANCE, type OwnJwtKey } from '../support/node-key-sets.ts';
import { evenRandom } from '../support/signers.ts';

export const pathOfSet = (node: string, instance = INSTANCE, resource: Resource = NODE_KEY_SETS): string => pathOf(resource, `${node}.${instance}`);

/** An object as an agent writes it. */
export function keySetObject(jws: unknown, node = 'node-a', instance = INSTANCE): JsonObject {
  return { apiVersion: 'signet.dev/v1alpha1', kind: 'NodeKeySet', metadata: { name: `${node}.${instance}` }, spec: { node, instance, jws } };
}

/** A bundle that a test changes. */
export class OwnBundle implements BundleSource {
  readonly #listeners = new Set<(bundle: TrustBundle) => void>();
  #bundle: TrustBundle;

  constructor(roots: readonly TestCa[], keys: readonly OwnJwtKey[] = []) {
    this.#bundle = { trustDomain: exampleOrg, x509Authorities: roots.map(({ certificate }) => certificate), jwtAuthorities: keys };
  }

  current(): TrustBundle {
    return this.#bundle;
  }

  onChange(listener: (bundle: TrustBundle) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  become(change: Partial<TrustBundle>): void {
    this.#bundle = { ...this.#bundle, ...change };
    for (const listener of [...this.#listeners]) listener(this.#bundle);
  }
}

/** The keys and the node CA of one node, changed by the test as a rotation does. */
export class OwnKeys implements OwnJwtKeys {
  readonly #listeners = new Set<() => void>();
  #keys: readonly OwnJwtKey[];
  #ca: TestCa | undefined;

  constructor(keys: readonly OwnJwtKey[], ca: TestCa | undefined) {
    this.#keys = keys;
    this.#ca = ca;
  }

  keys(): readonly OwnJwtKey[] {
    return this.#keys;
  }

  signer(): KeySetSigner | undefined {
    const ca = this.#ca;
    if (ca === undefined) return undefined;
    return { certificate: ca.certificate, sign: (set) => signNodeKeys(ca, [ca.certificate], { ...set, keys: set.keys, trustDomain: exampleOrg }) };
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  become(keys: readonly OwnJwtKey[], ca = this.#ca): void {
    this.#keys = keys;
    this.#ca = ca;
    for (const listener of [...this.#listeners]) listener();
  }
}

export interface Watcher {
  readonly keys: ClusterJwtKeys;
  readonly logged: JsonObject[];
  kids(): readonly string[];
}

type Client = ClusterJwtKeysOptions['client'];

export function watcher(t: ExecutionContext, client: Client, own: BundleSource, clock: Clock, more: Partial<ClusterJwtKeysOptions> = {}): Watcher {
  const logged: JsonObject[] = [];
  const log = createLog('debug', { write: (line) => void logged.push(JSON.parse(line) as JsonObject) });
  const keys = new ClusterJwtKeys({ client, own, verify: verifyNodeKeys, clock, random: evenRandom, log, ...more });
  t.teardown(() => keys.close());
  return { keys, logged, kids: () => keys.keys().map(({ kid }) => kid) };
}

export interface Published {
  readonly publisher: JwtKeyPublisher;
  readonly logged: JsonObject[];
}

export function publisherOf(t: ExecutionContext, own: OwnJwtKeys, clock: Clock, more: Pick<JwtKeyPublisherOptions, 'client' | 'known'> & Partial<JwtKeyPublisherOptions>): Published {
  const logged: JsonObject[] = [];
  const log = createLog('debug', { write: (line) => void logged.push(JSON.parse(line) as JsonObject) });
  const publisher = new JwtKeyPublisher({ node: 'node-a', instance: INSTANCE, own, clock, random: evenRandom, log, ...more });
  t.teardown(() => publisher.close());
  return { publisher, logged };
}

/** Nothing is known of the cluster. */
export const nothingKnown: JwtKeyPublisherOptions['known'] = { jwsOf: () => undefined, wasKnownBefore: () => false, onObject: () => () => undefined };

/** An API server with the Node `node-a`. */
export function apiWithNode(uid = 'node-uid'): MemoryApi {
  const api = new MemoryApi();
  api.objects.set('/api/v1/nodes/node-a', { metadata: { name: 'node-a', uid } });
  return api;
}

export const kidsOf = (...keys: readonly { readonly kid: string }[]): string[] => keys.map(({ kid }) => kid).sort();
