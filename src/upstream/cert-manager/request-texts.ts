import type { CertManagerFault } from './cert-manager-error.ts';

const APPROVERS = "let an approver take it: cert-manager's own, or approver-policy with deploy/cert-manager/approver-policy.yaml";

/**
 * What is wrong with a request, and what an operator does about it.
 *
 * @param request names it, as does `issuer`; `words`: what cert-manager has said.
 */
export function requestText(fault: CertManagerFault, request: string, issuer: string, words: string): string {
  const said = words === '' ? '' : `: ${words}`;
  switch (fault) {
    case 'denied':
      return `${request} was denied${said}. What to do: ${APPROVERS}`;
    case 'failed':
      return `${issuer} has refused ${request}${said}. What to do: let it sign what the request says ("kubectl describe" shows it)`;
    case 'invalid_request':
      return `${request} is taken for invalid${said}`;
    case 'not_approved':
      return `nobody has approved or denied ${request}${said}. What to do: see that cert-manager's controller runs, and ${APPROVERS}`;
    case 'not_taken':
      return `${request} is approved, and nobody has taken it up${said}. What to do: see that the controller of ${issuer} runs, and that its kind and group are right`;
    case 'no_issuer':
      return `${issuer} does not exist${said}. What to do: make it, or name another one in authority.certManager.issuer`;
    case 'issuer_not_ready':
      return `${issuer} is not ready${said}. What to do: "kubectl describe" it`;
    case 'deleted':
      return `somebody has deleted ${request} before it was answered`;
    case 'pending':
      return `${issuer} has not signed ${request} yet${said}`;
    default:
      return `${request} cannot be used${said}`;
  }
}
