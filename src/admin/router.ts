import type { Clock } from '../clock.ts';
import { AUTHORITY_COMMANDS } from '../events.ts';
import { command, viewOf, type Operator } from './authority.ts';
import type { DryRun, Explanation } from './messages.ts';
import { DryRunner } from './dry-run.ts';
import { Explainer } from './explainer.ts';
import { Refusal } from './refusal.ts';
import type { AdminSource } from './source.ts';

/** What is done once the body has come. */
export type Question = (body: string, signal: AbortSignal, operator: Operator) => Promise<unknown>;

const METHODS: Readonly<Record<string, readonly string[]>> = {
  '/v1/explain': ['GET', 'POST'],
  '/v1/rules': ['GET'],
  '/v1/status': ['GET'],
  '/v1/authority': ['GET'],
  '/v1/authority/prepare': ['POST'],
  '/v1/authority/activate': ['POST'],
  '/v1/authority/taint': ['POST'],
  '/v1/authority/revoke': ['POST'],
};

/** Above any pid of Linux (PID_MAX_LIMIT is 2^22), so that a number with a typing mistake is told as such by /proc. */
const PID = /^[1-9][0-9]{0,9}$/;

/** RFC 1123 names of Kubernetes objects, and nothing that could be a path. */
const POD = /^([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)\/([a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?)$/;
const CONTAINER = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

/** Reads method, path and query by the letter: what is not known is refused, never ignored. */
export class Router {
  readonly #source: AdminSource;
  readonly #explainer: Explainer;
  readonly #dryRunner: DryRunner;

  constructor(source: AdminSource, clock: Clock) {
    this.#source = source;
    this.#explainer = new Explainer(source);
    this.#dryRunner = new DryRunner(source, clock);
  }

  /** @throws Refusal `unknown_path`, `method_not_allowed`, `bad_request` */
  read(method: string, target: string): Question {
    const { path, query } = parseTarget(target);
    const methods = Object.hasOwn(METHODS, path) ? METHODS[path] : undefined;
    if (methods === undefined) {
      throw new Refusal(
        'unknown_path',
        `there is no ${JSON.stringify(path.slice(0, 80))} here`,
        `known are ${Object.keys(METHODS).join(', ')}`,
      );
    }
    if (!methods.includes(method)) {
      throw new Refusal('method_not_allowed', `${path} does not know ${method.slice(0, 20)}`, `allowed is ${methods.join(', ')}`);
    }
    if (path === '/v1/explain' && method === 'GET') return this.#explain(query);
    parametersOf(query, []);
    const order = AUTHORITY_COMMANDS.find((name) => path === `/v1/authority/${name}`);
    if (order !== undefined) return (body, _signal, operator) => command(this.#source, order, body, operator);
    if (path === '/v1/authority') return async () => viewOf(this.#source);
    if (path === '/v1/explain') return (body, signal): Promise<DryRun> => this.#dryRunner.run(body, signal);
    return async () => (path === '/v1/rules' ? { rules: this.#source.rules() } : this.#source.status());
  }

  #explain(query: URLSearchParams): (body: string, signal: AbortSignal) => Promise<Explanation> {
    const { pid, pod, container } = parametersOf(query, ['pid', 'pod', 'container']);
    if ((pid === undefined) === (pod === undefined)) throw new Refusal('bad_request', 'one of pid and pod is needed, not both');
    if (pid !== undefined) {
      if (!PID.test(pid)) {
        throw new Refusal('bad_request', `pid is ${JSON.stringify(pid.slice(0, 40))}; allowed is a decimal number from 1`);
      }
      if (container !== undefined) throw new Refusal('bad_request', 'container goes with pod, not with pid');
      return (_body, signal) => this.#explainer.process(Number(pid), signal);
    }
    const [, namespace, name] = POD.exec(pod ?? '') ?? [];
    if (namespace === undefined || name === undefined) {
      throw new Refusal('bad_request', `pod is ${JSON.stringify(pod?.slice(0, 80))}; allowed is NAMESPACE/NAME`);
    }
    if (container !== undefined && !CONTAINER.test(container)) {
      throw new Refusal(
        'bad_request',
        `container is ${JSON.stringify(container.slice(0, 80))}; allowed is the name of a container`,
      );
    }
    return (_body, signal) => this.#explainer.pod(namespace, name, container, signal);
  }
}

function parseTarget(target: string): { path: string; query: URLSearchParams } {
  const cut = target.indexOf('?');
  return cut === -1
    ? { path: target, query: new URLSearchParams() }
    : { path: target.slice(0, cut), query: new URLSearchParams(target.slice(cut + 1)) };
}

/** Each of `known` at most once, and nothing else. */
function parametersOf<K extends string>(query: URLSearchParams, known: readonly K[]): Partial<Record<K, string>> {
  const found: Partial<Record<K, string>> = {};
  for (const [name, value] of query) {
    const key = known.find((one) => one === name);
    const allowed = known.length === 0 ? 'there are no parameters here' : `known are ${known.join(', ')}`;
    if (key === undefined) throw new Refusal('bad_request', `unknown parameter ${JSON.stringify(name.slice(0, 40))}; ${allowed}`);
    if (found[key] !== undefined) throw new Refusal('bad_request', `${key} is there twice`);
    found[key] = value;
  }
  return found;
}
