import { SignetError } from '../../errors.ts';
import { hasStatus, KubernetesError } from '../../kubernetes/api-error.ts';

/** Why the API server could not be asked at all: it passes, and nothing but waiting helps here. */
const AWAY = ['unreachable', 'tls', 'timed_out', 'overloaded'] as const;

/** What went wrong. All but those of `AWAY` were about one request or one right. */
export type CertManagerFault =
  | (typeof AWAY)[number]
  /** The API server does not take our token or client certificate. */
  | 'unauthenticated'
  /** It does, but does not let us do it. */
  | 'forbidden'
  /** cert-manager's definitions, or the namespace, are not there. */
  | 'not_installed'
  /** cert-manager's webhook cannot be asked, so that no request can be made. */
  | 'webhook'
  /** The request was not taken as an object. */
  | 'rejected'
  /** Nobody has said yes or no. */
  | 'not_approved'
  | 'denied'
  /** Approved, and nobody has taken it up. */
  | 'not_taken'
  | 'no_issuer'
  | 'issuer_not_ready'
  /** Taken up, and not done in time. */
  | 'pending'
  | 'failed'
  | 'invalid_request'
  /** Somebody has deleted the request while it was waited for. */
  | 'deleted'
  /** What was signed does not stand under a root that is believed. */
  | 'unknown_root'
  | 'no_roots'
  | 'malformed';

/** What cert-manager, or the API server in front of it, refused, or why it could not be asked. It is tried again without a restart. */
export class CertManagerError extends SignetError {
  readonly fault: CertManagerFault;
  readonly retryAfterMs: number | undefined;

  constructor(fault: CertManagerFault, message: string, options: { readonly cause?: unknown; readonly retryAfterMs?: number | undefined } = {}) {
    super('authority_unavailable', message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'CertManagerError';
    this.fault = fault;
    this.retryAfterMs = options.retryAfterMs;
  }
}

/** True when `error` says that the API server cannot be asked at present. */
export function isAway(error: unknown): boolean {
  return error instanceof CertManagerError && AWAY.some((one) => one === error.fault);
}

/** True when `error` has one of `faults`. */
export function hasFault(error: unknown, ...faults: CertManagerFault[]): error is CertManagerError {
  return error instanceof CertManagerError && faults.includes(error.fault);
}

/** What the API server answered to a request about CertificateRequests, in our words beside its own. */
export function faultOf(error: unknown, namespace: string): unknown {
  if (!(error instanceof KubernetesError) || error.code === 'stopped') return error;
  const { status, retryAfterMs } = error;
  const [fault, remedy] = judge(error, namespace);
  const told = status === undefined ? `the API server cannot be asked: ${error.message}` : error.message;
  return new CertManagerError(fault, remedy === '' ? told : `${told}. What to do: ${remedy}`, { cause: error, retryAfterMs });
}

function judge(error: KubernetesError, namespace: string): readonly [CertManagerFault, string] {
  const { status, message } = error;
  if (status === undefined) return notAsked(error);
  if (/failed calling webhook/.test(message)) return ['webhook', 'see that cert-manager\'s webhook runs and can be reached by the API server'];
  if (status === 401) return ['unauthenticated', 'see that the agent\'s token or client certificate is one of this cluster and has not ended'];
  // An admission policy or webhook that says no also answers 403.
  if (status === 403 && !/denied|forbidden: ValidatingAdmissionPolicy/.test(message)) {
    return ['forbidden', `let the agent create, get, list, watch and delete certificaterequests in ${namespace}, as deploy/cert-manager does`];
  }
  if (status === 404) return ['not_installed', `install cert-manager, and make the namespace ${namespace}`];
  if (hasStatus(error, 400, 403, 409, 422)) return ['rejected', ''];
  return ['overloaded', ''];
}

function notAsked(error: KubernetesError): readonly [CertManagerFault, string] {
  if (error.code === 'timed_out') return ['timed_out', ''];
  if (/certificate|self.signed|TLS|SSL/i.test(error.message)) return ['tls', 'see that the cluster\'s CA is the one in the kubeconfig, or that of the service account'];
  return ['unreachable', ''];
}

/** What is not as it should be with the issuer, by the words of cert-manager 1.19. */
export function pendingFault(words: string): CertManagerFault {
  if (/Referenced ".*" not found/.test(words)) return 'no_issuer';
  if (/does not have a Ready status condition|[Ss]ecret .*not found|Failed to parse signing CA|Failed to initialise|Missing issuer type/.test(words)) return 'issuer_not_ready';
  return 'pending';
}
