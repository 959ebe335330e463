import type { Images } from '../images.ts';
import { listOf, type KubeObject, type Kubectl, type Pod } from '../kubectl.ts';
import { RED } from '../world.ts';
import { podOf } from '../workloads.ts';

/** A node without a kubelet. Objects of pods can be bound to it in any number, and no machine has to run them. */
export const FAKE_NODE = 'signet-e2e-fake';
const SELECTOR = 'signet-e2e=scale';

export class FakeNode {
  readonly #kubectl: Kubectl;
  readonly #images: Images;

  constructor(kubectl: Kubectl, images: Images) {
    this.#kubectl = kubectl;
    this.#images = images;
  }

  async create(): Promise<void> {
    await this.#kubectl.apply({ apiVersion: 'v1', kind: 'Node', metadata: { name: FAKE_NODE }, spec: { unschedulable: true } });
  }

  /** Resolves with as many pods as are wanted, those that were there before among them. */
  async pods(wanted: number): Promise<readonly Pod[]> {
    const objects = Array.from({ length: wanted }, (_, at) => this.#podOf(at));
    await this.#kubectl.run(['apply', '-f', '-'], listOf(objects), 300_000);
    return this.#kubectl.pods(RED, SELECTOR);
  }

  async remove(): Promise<void> {
    await this.#kubectl.run(
      ['delete', 'pod', '-n', RED, '-l', SELECTOR, '--grace-period=0', '--force', '--wait=true', '--timeout=120s'],
      undefined,
      180_000,
    );
    await this.#kubectl.remove('node', undefined, FAKE_NODE);
  }

  #podOf(at: number): KubeObject {
    // Without the toleration the controllers would evict them from a node that never answers.
    const spec = { nodeName: FAKE_NODE, tolerations: [{ operator: 'Exists' }] };
    return podOf(this.#images, {
      namespace: RED,
      name: `scale-${at}`,
      serviceAccount: 'alpha',
      labels: { 'signet-e2e': 'scale', index: String(at) },
      spec,
    });
  }
}
