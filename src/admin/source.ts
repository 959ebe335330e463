import type { ProcessDescription } from '../attestation/kubernetes.ts';
import type { AuthorityOrders } from '../authority/orders.ts';
import type { CommandedFact } from '../events.ts';
import type { JwtState } from '../identity/jwt-identities.ts';
import type { X509State } from '../identity/x509-identities.ts';
import type { Pod } from '../kubernetes/pod.ts';
import type { Facts } from '../registration/rules/facts.ts';
import type { ClassOptions, Rule } from '../registration/rules/rule.ts';
import type { Entry } from '../spiffe/entry.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import type { Selector } from '../spiffe/selector.ts';
import type { Asking } from './extra-facts.ts';
import type { AgentStatus, RuleFact } from './messages.ts';

/** All that the operator's socket sees of the agent. Nothing behind it changes anything, but orders to `authority`. */
export interface AdminSource {
  readonly unix: UnixFacts;
  /** Undefined where pods are not attested. */
  readonly kubernetes: KubernetesFacts | undefined;
  readonly registration: RegistrationFacts;
  readonly x509: { describe(entry: Entry): X509State | undefined };
  readonly jwt: { describe(entry: Entry): JwtState };
  /** Undefined where the agent holds no signing keys. */
  readonly authority?: AuthorityControl | undefined;
  rules(): readonly RuleFact[];
  status(): AgentStatus;
}

export interface AuthorityControl {
  readonly orders: AuthorityOrders;
  /** Told of every order, whatever has become of it. */
  commanded(fact: CommandedFact): void;
}

export interface UnixFacts {
  /**
   * The selectors by user, groups and (where enabled) program that this process would have as a caller.
   *
   * @throws SignetError as attestors do
   */
  attest(process: UnixProcess, signal: AbortSignal): Promise<readonly Selector[]>;
}

/** As the kernel would tell it of a connection. */
export interface UnixProcess {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
}

export interface KubernetesFacts {
  readonly nodeName: string;
  /** Where the process is, by its cgroup: `KubernetesAttestor.describe`. Never throws. */
  describe(pid: number): ProcessDescription;
  /** The pods of this node, departed ones included as far as they are known. */
  pods(): Iterable<Pod>;
  /** For a dry run of rules that look at what is not followed (labels of namespaces, the node, annotations). */
  readonly client?: Asking;
  /** The node of a pod that is not on this one, from the API server: '' while it has none; undefined when there is no such pod. */
  locate?(namespace: string, name: string, signal: AbortSignal): Promise<string | undefined>;
}

export interface RegistrationFacts {
  /** What a caller with these selectors owns, the default identity first. */
  match(selectors: readonly Selector[]): readonly Entry[];
  /** False while "none" may only mean that something is not known yet. Left out: true. */
  isComplete?(selectors: readonly Selector[]): boolean;
  /** All rules that count: for pods, the default one, and static entries of the configuration and of objects. */
  rules(): readonly Rule[];
  /** What rules may ask of this pod, without selectors. */
  facts(pod: Pod): Facts;
  readonly options: RegistrationOptions;
}

export interface RegistrationOptions extends ClassOptions {
  readonly trustDomain: TrustDomain;
  readonly excludeNamespaces: readonly string[];
}
