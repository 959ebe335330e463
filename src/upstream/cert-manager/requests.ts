import type { Alarm } from '../../clock.ts';
import { isSignetError, messageOf, SignetError } from '../../errors.ts';
import type { KubernetesClient } from '../../kubernetes/api-client.ts';
import { KubernetesError } from '../../kubernetes/api-error.ts';
import { Informer } from '../../kubernetes/informer.ts';
import type { JsonObject } from '../../kubernetes/json.ts';
import { objectAt, textAt } from '../../kubernetes/json.ts';
import { nodeUidOf, ownedByNode } from '../../kubernetes/node-owner.ts';
import { namespacedPathOf } from '../../kubernetes/resources.ts';
import { CertManagerError, faultOf, type CertManagerFault } from './cert-manager-error.ts';
import { CERTIFICATE_REQUESTS, INSTANCE_LABEL, progressOf, requestObject, type Issued, type Owner, type Progress, type Wanted } from './certificate-request.ts';
import { issuerText, type IssuerRef } from './issuer-ref.ts';
import { Leftovers } from './leftovers.ts';
import { PATIENCE, timesOf, type Patience } from './patience.ts';
import { requestText } from './request-texts.ts';
import type { Trouble, TroubleTools } from './trouble.ts';

export interface RequestsOptions {
  readonly namespace: string;
  readonly issuer: IssuerRef;
  readonly owner: Owner;
  /** The name of this node's Node object, to which requests belong; undefined outside a cluster. */
  readonly nodeName: string | undefined;
  readonly patience?: Partial<Patience>;
}

export type RequestsClient = Pick<KubernetesClient, 'get' | 'create' | 'delete' | 'list' | 'watch'>;

export interface RequestsTools extends TroubleTools {
  /** Belongs to whoever passes it. */
  readonly client: RequestsClient;
  readonly trouble: Trouble;
}

/** One request that is waited for. */
interface Open {
  readonly name: string;
  readonly settle: PromiseWithResolvers<Issued>;
  progress: Progress;
  /** True when there is such an object for sure; undefined when that is not known. */
  isMade: boolean | undefined;
  alarms: readonly Alarm[];
}

/** The watch goes on for so long after the last request: the next one may follow at once. */
const IDLE_MS = 30_000;

/** A node's name may have 253 characters, and so may that of an object. */
const LONGEST_NODE = 200;

/**
 * Makes CertificateRequests and waits for what becomes of them by one watch on those of this agent, which runs only while there are
 * some. Each is deleted after use; those of a predecessor are too. The last one that was refused stays, for `kubectl describe`, until
 * the next has ended.
 */
export class CertificateRequests {
  readonly #options: RequestsOptions;
  readonly #tools: RequestsTools;
  readonly #patience: Patience;
  readonly #leftovers: Leftovers;
  readonly #open = new Map<string, Open>();
  readonly #closing = new AbortController();
  #informer: Informer<Named> | undefined;
  #closingInformer: Promise<void> = Promise.resolve();
  #idle: Alarm | undefined;
  #nodeUid: string | undefined;
  #isNodeKnown = false;
  #refused: string | undefined;

  /** Begins to delete what a predecessor has left. */
  constructor(options: RequestsOptions, tools: RequestsTools) {
    this.#options = options;
    this.#tools = tools;
    this.#patience = { ...PATIENCE, ...options.patience };
    this.#leftovers = new Leftovers({ path: this.#path(), instance: options.owner.instance, isWanted: (name) => this.#open.has(name) || name === this.#refused }, tools);
    this.#leftovers.find();
  }

  /**
   * Has a certificate signed.
   *
   * @throws CertManagerError, or the signal's reason.
   */
  async issue(wanted: Wanted, signal: AbortSignal): Promise<Issued> {
    signal.throwIfAborted();
    this.#closing.signal.throwIfAborted();
    const { clock, trouble } = this.#tools;
    const began = clock.monotonic();
    const open = this.#enter();
    let isRefused = false;
    try {
      const issued = await this.#issue(open, wanted, AbortSignal.any([signal, this.#closing.signal]));
      trouble.succeeded('sign', clock.monotonic() - began);
      return issued;
    } catch (error) {
      const fault = faultOf(error, this.#options.namespace);
      isRefused = fault instanceof CertManagerError;
      if (isRefused) trouble.failed('sign', fault);
      throw fault;
    } finally {
      this.#leave(open, isRefused);
    }
  }

  /** Resolves when nothing is being asked any more; what could not be deleted is found at the next start. */
  async close(): Promise<void> {
    this.#closing.abort(new SignetError('stopped', 'the agent stops'));
    this.#idle?.cancel();
    for (const open of this.#open.values()) for (const alarm of open.alarms) alarm.cancel();
    await Promise.all([this.#informer?.close(), this.#closingInformer, this.#leftovers.close()]);
  }

  async #issue(open: Open, wanted: Wanted, signal: AbortSignal): Promise<Issued> {
    const { client } = this.#tools;
    const { namespace, issuer, owner, nodeName } = this.#options;
    const aborted = (): void => open.settle.reject(signal.reason);
    signal.addEventListener('abort', aborted, { once: true });
    try {
      const metadata = ownedByNode(open.name, nodeName ?? '', await this.#uidOfNode(signal));
      // Before the answer: it may be lost on its way.
      this.#leftovers.note(open.name);
      open.isMade = undefined;
      await client.create(this.#path(), requestObject(wanted, issuer, owner, metadata, namespace), { signal });
      open.isMade = true;
      this.#plan(open);
      return await open.settle.promise;
    } catch (error) {
      if (error instanceof KubernetesError && error.status !== undefined && error.status < 500) open.isMade = false;
      throw error;
    } finally {
      signal.removeEventListener('abort', aborted);
    }
  }

  #enter(): Open {
    const { random } = this.#tools;
    const name = `signet-${nameOf(this.#options.owner.node)}-${random.bytes(5).toString('hex')}`;
    const open: Open = { name, settle: Promise.withResolvers<Issued>(), progress: { kind: 'waiting', fault: 'not_approved', words: '' }, isMade: false, alarms: [] };
    open.settle.promise.catch(() => undefined);
    this.#open.set(name, open);
    this.#idle?.cancel();
    this.#idle = undefined;
    this.#informer ??= this.#follow();
    return open;
  }

  #leave(open: Open, isRefused: boolean): void {
    for (const alarm of open.alarms) alarm.cancel();
    this.#open.delete(open.name);
    const former = this.#refused;
    const isKept = isRefused && open.isMade === true && !this.#closing.signal.aborted;
    this.#refused = isKept ? open.name : undefined;
    if (isKept || open.isMade === false) this.#leftovers.forget(open.name);
    else this.#leftovers.remove(open.name);
    if (former !== undefined) this.#leftovers.remove(former);
    if (this.#open.size === 0 && !this.#closing.signal.aborted) this.#idle = this.#tools.clock.after(IDLE_MS, () => this.#unfollow());
  }

  #follow(): Informer<Named> {
    const { client, clock, random, log } = this.#tools;
    const resource = { ...CERTIFICATE_REQUESTS, path: this.#path() };
    const labelSelector = `${INSTANCE_LABEL}=${this.#options.owner.instance}`;
    const trim = (raw: JsonObject): Named => ({ name: textAt(objectAt(raw, 'metadata'), 'name'), progress: progressOf(raw) });
    const informer = new Informer<Named>({ client, resource, labelSelector, trim, clock, random, log });
    informer.onChange((kind, { name, progress }) => this.#heard(name, kind === 'removed' ? undefined : progress));
    informer.start();
    return informer;
  }

  #unfollow(): void {
    const informer = this.#informer;
    this.#informer = undefined;
    this.#closingInformer = this.#closingInformer.then(() => informer?.close());
  }

  /** `progress`: undefined when the request is gone. */
  #heard(name: string, progress: Progress | undefined): void {
    const open = this.#open.get(name);
    if (open === undefined) return;
    open.isMade = progress !== undefined;
    if (progress === undefined) return open.settle.reject(this.#error('deleted', open, ''));
    if (progress.kind === 'issued') return open.settle.resolve(progress.issued);
    if (progress.kind === 'over') return open.settle.reject(this.#error(progress.fault, open, progress.words));
    const isOther = open.progress.kind !== 'waiting' || open.progress.fault !== progress.fault || open.progress.words !== progress.words;
    open.progress = progress;
    if (isOther) this.#plan(open);
  }

  /** When this is told, and when it is given up, if nothing more is heard. */
  #plan(open: Open): void {
    for (const alarm of open.alarms) alarm.cancel();
    if (!this.#open.has(open.name) || open.progress.kind !== 'waiting') return;
    const { clock, trouble } = this.#tools;
    const { fault, words } = open.progress;
    const { tell, end } = timesOf(fault, this.#patience);
    open.alarms = [
      clock.after(tell, () => trouble.failed('sign', this.#standing(fault, open, words))),
      clock.after(end, () => open.settle.reject(this.#standing(fault, open, `${words}${words === '' ? '' : '; '}given up after ${end / 1_000} s`))),
    ];
  }

  /** Who is not told of the request cannot say what is wrong with it. */
  #standing(fault: CertManagerFault, open: Open, words: string): CertManagerError {
    const away = this.#informer?.failure;
    if (away === undefined) return this.#error(fault, open, words);
    return new CertManagerError(/: 403\b/.test(away) ? 'forbidden' : 'unreachable', `what becomes of CertificateRequests is not told: ${away}`);
  }

  #error(fault: CertManagerFault, { name }: Open, words: string): CertManagerError {
    const { namespace, issuer } = this.#options;
    return new CertManagerError(fault, requestText(fault, `the CertificateRequest ${namespace}/${name}`, issuerText(issuer), words));
  }

  #path(): string {
    return namespacedPathOf(CERTIFICATE_REQUESTS, this.#options.namespace);
  }

  /** With the Node go its requests. Whoever may not read Nodes asks nevertheless. */
  async #uidOfNode(signal: AbortSignal): Promise<string | undefined> {
    const { nodeName } = this.#options;
    if (this.#isNodeKnown || nodeName === undefined) return this.#nodeUid;
    try {
      this.#nodeUid = await nodeUidOf(this.#tools.client, nodeName, signal);
      this.#isNodeKnown = true;
    } catch (error) {
      signal.throwIfAborted();
      if (!isSignetError(error)) throw error;
      this.#tools.log.debug({ event: 'upstream.warning', reason: messageOf(error) }, 'the Node cannot be read; its requests belong to nobody');
    }
    return this.#nodeUid;
  }
}

interface Named {
  readonly name: string;
  readonly progress: Progress;
}

/** Part of a name (RFC 1123 §2.1). */
function nameOf(node: string): string {
  const name = node.toLowerCase().replaceAll(/[^a-z0-9.-]+/g, '-').slice(0, LONGEST_NODE);
  return name.replaceAll(/^[.-]+|[.-]+$/g, '').replaceAll(/[.-]*\.[.-]*/g, '.') || 'node';
}
