/**
 * What the operator's socket answers, as JSON. Types only: the commands see nothing else of this room. Times are RFC 3339 in UTC.
 * Nothing here ever holds a key, a token or a certificate.
 */

export type AdminErrorCode =
  | 'bad_request'
  | 'bad_rules'
  | 'not_allowed'
  | 'unknown_path'
  | 'method_not_allowed'
  | 'no_such_process'
  | 'no_such_pod'
  | 'no_such_container'
  | 'no_kubernetes'
  | 'no_authority'
  | 'no_such_key'
  | 'order_refused'
  | 'not_kept'
  | 'too_large'
  | 'too_slow'
  | 'busy'
  | 'not_ready'
  | 'failed';

/** The body of every answer whose status is 400 or more. */
export interface AdminFailure {
  readonly error: {
    readonly code: AdminErrorCode;
    /** What is wrong, as a sentence without its full stop. */
    readonly message: string;
    /** What to do about it. */
    readonly next?: string;
    /** With `bad_rules`: everything that is wrong with the file. */
    readonly problems?: readonly RuleProblem[];
  };
}

/** `GET /v1/explain?pid=N` and `GET /v1/explain?pod=NAMESPACE/NAME[&container=NAME]` */
export interface Explanation {
  readonly subject: Subject;
  /** What a caller like that has, sorted. */
  readonly selectors: readonly SelectorFact[];
  /** ClusterSPIFFEIDs in their order, the default rule last. Empty outside pods. */
  readonly rules: readonly RuleVerdict[];
  readonly static_entries: readonly EntryVerdict[];
  /** The default identity first. */
  readonly identities: readonly IdentityFact[];
  readonly answer: Answer;
  /** Sentences about what could not be told, or only by assumption. */
  readonly notes: readonly string[];
}

export interface Subject {
  readonly process?: ProcessFact;
  readonly placement: PlacementFact;
  readonly pod?: PodFact;
  readonly container?: string;
}

export interface ProcessFact {
  readonly pid: number;
  /** The name of its program as the kernel has it, at most 15 bytes. */
  readonly command: string;
  /** One letter, as proc_pid_stat(5) has it: `S`, `Z`. */
  readonly state: string;
  readonly kernel_thread: boolean;
  /** Effective IDs, as the kernel would tell them of its connection. */
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
}

export interface PlacementFact {
  /** `unattested`: pods are not attested by this agent. `unclear`: the caller would be refused. */
  readonly kind: 'pod' | 'host' | 'unclear' | 'unattested';
  readonly why: string;
  /** The lines of `/proc/<pid>/cgroup`; empty when a pod was asked for. */
  readonly cgroup: readonly string[];
}

export interface PodFact {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly service_account: string;
  readonly node: string;
  readonly phase: string;
  readonly deleting: boolean;
  readonly containers: readonly string[];
}

export interface SelectorFact {
  readonly selector: string;
  /** Who vouches for it: `SO_PEERCRED`, `/etc/passwd`, `pod default/web (API server)`, `status of container web`. */
  readonly from: string;
}

export interface RuleVerdict {
  /** `ClusterSPIFFEID`, `default` */
  readonly kind: string;
  readonly name: string;
  readonly applies: boolean;
  /** `applies`, `masked`, `failed`, `unselected`, `superseded`, `excluded`, `undecided` */
  readonly outcome: string;
  readonly why: string;
  readonly spiffe_id?: string;
  readonly problems: readonly string[];
}

export interface EntryVerdict {
  readonly spiffe_id: string;
  /** `entries[0]` of the configuration, or `ClusterStaticEntry NAME`. */
  readonly from: string;
  readonly selectors: readonly string[];
  readonly missing: readonly string[];
  readonly applies: boolean;
  readonly why: string;
}

export interface IdentityFact {
  readonly spiffe_id: string;
  readonly default: boolean;
  readonly hint: string;
  readonly dns_names: readonly string[];
  /** Undefined while there is none: it is made when it is first asked for. */
  readonly x509?: X509Fact;
  readonly jwt?: JwtFact;
}

export interface X509Fact {
  /** Undefined when the first one could not be made yet. */
  readonly serial?: string;
  readonly not_before?: string;
  readonly not_after?: string;
  /** Undefined while nobody reads it: then it is not renewed. */
  readonly renew_at?: string;
  readonly readers: number;
  /** Failed attempts in a row. */
  readonly failures: number;
}

export interface JwtFact {
  /** Valid tokens, one for each list of audiences. */
  readonly tokens: number;
  readonly soonest_expiry?: string;
}

export interface Answer {
  /** `identities`: it gets them. `none`: PermissionDenied. `refused`: Unavailable, it cannot be attested. */
  readonly kind: 'identities' | 'none' | 'refused';
  readonly why: string;
}

/** `POST /v1/explain`: what the pods of the node would have if the rules in the body were applied. */
export interface DryRun {
  readonly rules: readonly DryRunRule[];
  readonly pods: readonly DryRunPod[];
  readonly notes: readonly string[];
}

export interface DryRunRule {
  readonly kind: string;
  readonly name: string;
  /** `unused`: it is of another class. */
  readonly change: 'new' | 'changed' | 'same' | 'unused';
  readonly pods: number;
  readonly problems: readonly RuleProblem[];
}

export interface RuleProblem {
  /** Where: `document 2 (ClusterSPIFFEID web): spec.podSelector`. */
  readonly path: string;
  readonly found: string;
  readonly allowed: string;
}

export interface DryRunPod {
  readonly namespace: string;
  readonly name: string;
  /** SPIFFE IDs, the default one first. */
  readonly now: readonly string[];
  readonly then: readonly string[];
  readonly changed: boolean;
  readonly problems: readonly string[];
}

/** `GET /v1/rules` */
export interface RuleList {
  readonly rules: readonly RuleFact[];
}

export interface RuleFact {
  readonly kind: string;
  readonly name: string;
  readonly class_name: string;
  readonly pods_selected: number;
  readonly pods_failed: number;
  /** Entries that repeat the identity of a rule that comes before. */
  readonly entries_masked: number;
  readonly problem?: string;
}

/** `GET /v1/status` */
export interface AgentStatus {
  readonly version: string;
  readonly pid: number;
  readonly started_at: string;
  readonly trust_domain: string;
  readonly socket: string;
  readonly ready: boolean;
  readonly degraded: boolean;
  readonly reasons: readonly StatusReason[];
  readonly authority: AuthorityFact;
  /** Undefined where pods are not attested. */
  readonly pods?: PodIndexFact;
  readonly identities: { readonly x509: number; readonly jwt: number; readonly soonest_expiry?: string };
  readonly rules: { readonly total: number; readonly refused: number; readonly static_entries: number };
  readonly connections: number;
}

export interface StatusReason {
  readonly code: string;
  readonly message: string;
  readonly detail?: string;
}

export interface AuthorityFact {
  /** `embedded`, `files` */
  readonly type: string;
  /** When the certificate that signs now ends. */
  readonly x509_not_after?: string;
  readonly jwt_not_after?: string;
  readonly roots: number;
  readonly jwt_keys: number;
  /** When the CA above was last reached; undefined where there is none. */
  readonly last_success?: string;
  readonly failing?: string;
}

export interface PodIndexFact {
  readonly node: string;
  readonly size: number;
  /** Pods that are gone from the API while their processes may run. */
  readonly unlisted: number;
  readonly synced: boolean;
  readonly last_contact?: string;
  readonly conflicts: number;
  readonly failing?: string;
}

/** `GET /v1/authority`: what signs, has signed and will sign. */
export interface AuthorityView {
  /** X.509 before JWT, each in the order in which they were made. */
  readonly keys: readonly AuthorityKeyFact[];
  /** Roots that are above the agent's own CA; empty where it is a root itself. */
  readonly roots: readonly AuthorityRootFact[];
}

export interface AuthorityKeyFact {
  readonly kind: 'x509' | 'jwt';
  /** The subject key identifier in hexadecimal, or the `kid`. */
  readonly id: string;
  /** `prepared`: in the bundle, signs later. `old`: in the bundle, signs no more. `tainted`: not to be relied on any more. */
  readonly state: 'prepared' | 'active' | 'old' | 'tainted';
  /** Since when it is in the bundle; undefined for a node CA, which is in none: its root is. */
  readonly published_since?: string;
  /** From when on a prepared one may be activated by hand. */
  readonly usable_from?: string;
  /** When it signs by itself, or has begun to. */
  readonly activates_at: string;
  /** When it is given up. */
  readonly leaves_at: string;
  readonly not_after: string;
}

export interface AuthorityRootFact {
  /** The SHA-256 fingerprint in hexadecimal. */
  readonly id: string;
  readonly subject: string;
  readonly published_since: string;
  /** From when on a CA under it may sign. */
  readonly usable_from: string;
  /** Since when the CA above does not stand for it any more; undefined while it does. */
  readonly left_at?: string;
  readonly not_after: string;
}

/**
 * `POST /v1/authority/prepare` and `.../activate` with `{"kind": "x509" | "jwt"}`, `.../taint` and `.../revoke` with `{"id": ID}`,
 * an ID or the beginning of one. `"dry_run": true` only tells; `"force": true` (activate, taint) does not wait until everybody can
 * have the new key.
 */
export interface OrderAnswer {
  /** False after a dry run. */
  readonly done: boolean;
  /** The key that it is about; undefined for one that would be made. */
  readonly key?: AuthorityKeyFact;
  /** What happens, as sentences without their full stop. */
  readonly says: readonly string[];
}
