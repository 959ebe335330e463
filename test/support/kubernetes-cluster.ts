import { SystemClock } from '../../src/clock.ts';
import { messageOf } from '../../src/errors.ts';
import { KubernetesClient } from '../../src/kubernetes/api-client.ts';
import type { Credentials } from '../../src/kubernetes/credentials.ts';
import { kubeconfigCredentials } from '../../src/kubernetes/kubeconfig.ts';
import { NODES } from '../../src/kubernetes/resources.ts';

export interface Cluster {
  readonly credentials: Credentials;
  readonly client: KubernetesClient;
}

/** A cluster with more nodes is probably someone's: the tests write, so they leave it alone. */
const MOST_NODES = 1;

/**
 * The cluster that SIGNET_TEST_KUBECONFIG leads to, or why there is none to test with. A name of its own: tests that write must not
 * follow whatever KUBECONFIG happens to be set to.
 */
export async function reachCluster(): Promise<Cluster | string> {
  const path = process.env['SIGNET_TEST_KUBECONFIG'];
  if (path === undefined || path === '') return 'SIGNET_TEST_KUBECONFIG is not set';
  try {
    const credentials = kubeconfigCredentials(path);
    const limits = { connectMs: 2_000, headersMs: 10_000 };
    const client = new KubernetesClient({ credentials, clock: new SystemClock(), limits });
    let nodes = 0;
    await client.list(NODES, {}, () => void (nodes += 1));
    return nodes > MOST_NODES ? `the cluster has ${nodes} nodes; the tests write, and only to one of at most ${MOST_NODES}` : { credentials, client };
  } catch (error) {
    return messageOf(error);
  }
}
