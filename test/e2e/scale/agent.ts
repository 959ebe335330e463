import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Harness } from '../harness.ts';
import { ROOT } from '../images.ts';
import { memoryOf, type Memory } from '../memory.ts';
import { runProgram } from '../run-program.ts';
import { eventually } from '../wait.ts';
import { TRUST_DOMAIN } from '../world.ts';
import { CGROUP_ROOT } from './caller.ts';
import { CountingProxy } from './counting-proxy.ts';
import { FAKE_NODE } from './fake-node.ts';

const READY_TIMEOUT_MS = 60_000;
const API_PORT = 6443;

/** An agent as a process of this machine, for `FAKE_NODE`, that sees the API server through a proxy that counts. */
export class LocalAgent {
  readonly proxy: CountingProxy;
  readonly endpoint: string;
  readonly #child: ChildProcess;

  private constructor(proxy: CountingProxy, endpoint: string, child: ChildProcess) {
    this.proxy = proxy;
    this.endpoint = endpoint;
    this.#child = child;
  }

  /** `directory` is made; its `agent.log` has what the agent says. */
  static async start(harness: Harness, directory: string): Promise<LocalAgent> {
    mkdirSync(directory, { recursive: true });
    const proxy = await proxyTo(harness, directory);
    writeConfig(directory, await proxy.listen());
    const log = openSync(join(directory, 'agent.log'), 'a');
    const child = spawn(join(ROOT, 'deploy/signet'), ['agent', '--config', join(directory, 'signet.yaml')], {
      stdio: ['ignore', log, log],
    });
    closeSync(log);
    const agent = new LocalAgent(proxy, `unix://${join(directory, 'run/api.sock')}`, child);
    try {
      await eventually('the agent serves', READY_TIMEOUT_MS, () => agent.#serves());
    } catch (error) {
      await agent.stop();
      throw new Error(`the agent does not serve: ${readFileSync(join(directory, 'agent.log'), 'utf8').slice(-2_000)}`, {
        cause: error,
      });
    }
    return agent;
  }

  memory(): Memory {
    return memoryOf(this.#child.pid ?? 0);
  }

  async stop(): Promise<void> {
    const ended = new Promise((resolve) => this.#child.once('exit', resolve));
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      this.#child.kill('SIGTERM');
      await ended;
    }
    this.proxy.close();
  }

  async #serves(): Promise<true> {
    await runProgram([join(ROOT, 'deploy/signet'), 'healthcheck', '--socket', this.endpoint.replace('unix://', '')]);
    return true;
  }
}

async function proxyTo(harness: Harness, directory: string): Promise<CountingProxy> {
  const [key, cert] = [join(directory, 'proxy.key'), join(directory, 'proxy.crt')];
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  await runProgram([
    'openssl',
    'req',
    '-x509',
    ...curve,
    '-keyout',
    key,
    '-out',
    cert,
    '-days',
    '1',
    '-subj',
    '/CN=proxy',
    '-addext',
    'subjectAltName=IP:127.0.0.1',
  ]);
  const pki = join(harness.names.state, 'pki');
  const read = (name: string): Buffer => readFileSync(join(pki, name));
  const upstream = {
    host: harness.names.nodeAddress,
    port: API_PORT,
    ca: read('ca.crt'),
    cert: read('admin.crt'),
    key: read('admin.key'),
  };
  return new CountingProxy(upstream, { cert: readFileSync(cert), key: readFileSync(key) });
}

/** JSON is YAML. */
function writeConfig(directory: string, port: number): void {
  const kubeconfig = join(directory, 'kubeconfig');
  writeFileSync(
    kubeconfig,
    JSON.stringify({
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [
        {
          name: 'proxy',
          cluster: { server: `https://127.0.0.1:${port}`, 'certificate-authority': join(directory, 'proxy.crt') },
        },
      ],
      users: [{ name: 'proxy', user: { token: 'none' } }],
      contexts: [{ name: 'proxy', context: { cluster: 'proxy', user: 'proxy' } }],
      'current-context': 'proxy',
    }),
    { mode: 0o600 },
  );
  writeFileSync(
    join(directory, 'signet.yaml'),
    JSON.stringify({
      trustDomain: TRUST_DOMAIN,
      clusterName: 'e2e',
      socketPath: join(directory, 'run/api.sock'),
      dataDir: join(directory, 'data'),
      privateDir: join(directory, 'private'),
      kubernetes: { nodeName: FAKE_NODE, kubeconfig },
      attestation: { kubernetes: { enabled: true, cgroupRoot: CGROUP_ROOT } },
      registration: { status: false },
      authority: { type: 'embedded', singleNode: true },
    }),
  );
}
