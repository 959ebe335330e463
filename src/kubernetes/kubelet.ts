import { isIPv6 } from 'node:net';
import type { Clock } from '../clock.ts';
import { SignetError } from '../errors.ts';
import { KubernetesClient } from './api-client.ts';
import { KubernetesError } from './api-error.ts';
import { credentialsFrom, type Credentials, type Source } from './credentials.ts';
import type { JsonObject } from './json.ts';
import type { Pod, TrimPod } from './pod.ts';
import type { TransportLimits } from './transport.ts';

export interface KubeletOptions {
  /** Address or name of the node: `10.0.0.7`, `127.0.0.1` in the host's network. */
  readonly host: string;
  /** Default 10250. */
  readonly port?: number;
  /** The name or address that the kubelet's serving certificate must be for; default `host`. */
  readonly serverName?: string | undefined;
  /** Needs `get` on `nodes/pods` (Kubernetes 1.33 or newer; before that `nodes/proxy`). */
  readonly token: Source;
  /** Roots of the kubelet's serving certificate: the cluster's CA where the kubelet's certificate is signed by it. */
  readonly ca: Source;
  readonly clock: Clock;
  readonly trim: TrimPod;
  readonly limits?: Partial<TransportLimits>;
}

const PORT = 10_250;

/** The kubelet's own list of the node's pods: fresher than the API server's, and there when that is not. */
export class Kubelet {
  readonly #client: KubernetesClient;
  readonly #trim: TrimPod;

  /** @throws SignetError `invalid_config` for a host or a port that is none. */
  constructor(options: KubeletOptions) {
    this.#trim = options.trim;
    this.#client = new KubernetesClient({
      credentials: credentialsOf(options),
      clock: options.clock,
      limits: options.limits ?? {},
    });
  }

  /** All pods that the kubelet knows, static ones under the UID that is in their cgroup path. @throws KubernetesError */
  async pods(signal?: AbortSignal): Promise<Pod[]> {
    const pods: Pod[] = [];
    const list = await this.#client.items('/pods', { signal }, (raw: JsonObject) => {
      const pod = this.#trim(raw, pods.length);
      if (pod !== undefined) pods.push(pod);
    });
    // An old kubelet's error page and a proxy's greeting are JSON objects too.
    const isList = list['kind'] === 'PodList';
    if (!isList) throw new KubernetesError('unavailable', 'the kubelet\'s answer to GET /pods is not a PodList');
    return pods;
  }

  close(): void {
    this.#client.close();
  }
}

function credentialsOf(options: KubeletOptions): Credentials {
  const { host, port = PORT, serverName, token, ca } = options;
  const address = `https://${isIPv6(host) ? `[${host}]` : host}:${port}`;
  const found = `${JSON.stringify(host)} and ${port}`;
  if (!URL.canParse(address)) throw new SignetError('invalid_config', `kubelet: ${found} are not an address and a port`);
  return credentialsFrom({ server: new URL(address), serverName, origin: `kubelet ${address}`, token, ca });
}
