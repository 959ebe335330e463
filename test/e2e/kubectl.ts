import { runProgram } from './run-program.ts';

export interface Metadata {
  readonly name: string;
  readonly namespace?: string;
  readonly uid?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** An object of the API; what is not named here is passed through. */
export interface KubeObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: Metadata;
  readonly [key: string]: unknown;
}

export interface Pod extends KubeObject {
  readonly metadata: Metadata & { readonly uid: string };
  readonly spec: Readonly<Record<string, unknown>> & { readonly nodeName?: string };
  readonly status: {
    readonly phase: string;
    readonly podIP?: string;
    readonly conditions?: readonly { type: string; status: string }[];
    readonly containerStatuses?: readonly { restartCount: number }[];
  };
}

/** The cluster, by way of kubectl: whatever a kubeconfig can say works. */
export class Kubectl {
  /** For scripts that call kubectl themselves. */
  readonly environment: Readonly<Record<string, string>>;
  readonly #program: string;

  constructor(program: string, kubeconfig: string) {
    this.#program = program;
    this.environment = { KUBECONFIG: kubeconfig, KUBECTL: program };
  }

  run(args: readonly string[], input?: string, timeoutMs?: number): Promise<string> {
    return runProgram([this.#program, ...args], {
      env: this.environment,
      ...(input === undefined ? {} : { input }),
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
    });
  }

  async json<T>(args: readonly string[]): Promise<T> {
    return JSON.parse(await this.run([...args, '-o', 'json'])) as T;
  }

  async apply(...objects: readonly KubeObject[]): Promise<void> {
    await this.run(['apply', '-f', '-'], listOf(objects));
  }

  /** At once, without the grace that a workload would be given. */
  async remove(kind: string, namespace: string | undefined, ...names: readonly string[]): Promise<void> {
    if (names.length === 0) return;
    const where = namespace === undefined ? [] : ['-n', namespace];
    const grace = kind === 'pod' ? ['--grace-period=0', '--force'] : [];
    await this.run(['delete', kind, ...where, ...grace, '--ignore-not-found', '--wait=true', '--timeout=90s', ...names]);
  }

  pod(namespace: string, name: string): Promise<Pod> {
    return this.json<Pod>(['get', 'pod', '-n', namespace, name]);
  }

  async pods(namespace: string, selector: string): Promise<readonly Pod[]> {
    return (await this.json<{ items: Pod[] }>(['get', 'pods', '-n', namespace, '-l', selector])).items;
  }

  logs(namespace: string, pod: string, container?: string): Promise<string> {
    return this.run(['logs', '-n', namespace, pod, ...(container === undefined ? [] : ['-c', container]), '--tail=-1']);
  }
}

export function listOf(objects: readonly KubeObject[]): string {
  return JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects });
}
