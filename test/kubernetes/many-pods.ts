/**
 * The program of a test: takes in pods of all kinds of size until it has seen `count` of each, and says what it has kept. With a
 * small heap it ends only when that is bounded.
 */
import { Cluster } from '../../src/kubernetes/cluster.ts';
import type { KubernetesClient, WatchEvent } from '../../src/kubernetes/api-client.ts';
import type { JsonObject } from '../../src/kubernetes/json.ts';
import { systemRandom } from '../../src/random.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { rawPod } from '../support/kubernetes-pods.ts';

const [way = 'watch', count = '0', labels = '0'] = process.argv.slice(2);
const COUNT = Number(count);

/** As it comes from the wire: no text is shared with another pod. */
function rawLarge(i: number): JsonObject {
  const text = (k: number): [string, string] => [`${'a'.repeat(34)}${i}-${k}`, `v${i}-${k}`.padEnd(63, 'x')];
  const all = Object.fromEntries(Array.from({ length: Number(labels) }, (_, k) => text(k)));
  return JSON.parse(JSON.stringify(rawPod({ name: `big-${i}`, uid: `u-${i}`, version: String(i + 1), labels: all }))) as JsonObject;
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const done = Promise.withResolvers<void>();
const hold = setInterval(() => undefined, 1_000);
const client: Pick<KubernetesClient, 'list' | 'watch'> = {
  async list(_resource, _options, onItem) {
    if (way === 'list') for (let i = 0; i < COUNT; i += 1) onItem(rawLarge(i));
    return '1';
  },
  async *watch(): AsyncGenerator<WatchEvent, void, undefined> {
    for (let i = 0; way !== 'list' && i < COUNT; i += 1) {
      yield { type: 'ADDED', object: rawLarge(i) };
      // Gone again, its processes may be there: it stays known for a while.
      if (way === 'churn') yield { type: 'DELETED', object: rawLarge(i) };
      if (i % 16 === 15) await turn();
    }
    done.resolve();
    await new Promise(() => undefined);
  },
};

const clock = new FakeClock();
const log = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
let written = 0;
const memory = { read: () => undefined, write: async (text: string) => void (written = Math.max(written, text.length)) };
const cluster = new Cluster({ nodeName: 'node-1', client: client as KubernetesClient, kubelet: undefined, source: 'api', customResources: false, memory }, { clock, random: systemRandom, log });
cluster.start();
await done.promise;
clock.advance(2_000);
await turn();
process.stdout.write(JSON.stringify({ known: cluster.pods.size + cluster.pods.unlisted, oversized: cluster.pods.oversized, written }));
clearInterval(hold);
process.exit(0);
