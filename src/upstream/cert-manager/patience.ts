import type { Waiting } from './certificate-request.ts';

/** In milliseconds. */
export interface Patience {
  /** A request of which nothing is heard is told after this. */
  readonly tell: number;
  /** The same for one of which cert-manager itself has said that something is missing. */
  readonly tellFault: number;
  /** For one that is being worked on. */
  readonly tellPending: number;
  /** Approval may be a person's. */
  readonly approval: number;
  /** From approval on: until it is taken up, and again until it is done. */
  readonly issuance: number;
}

export const PATIENCE: Patience = { tell: 10_000, tellFault: 3_000, tellPending: 30_000, approval: 300_000, issuance: 120_000 };

/** When a request that stands at `fault` is told, and when it is given up. */
export function timesOf(fault: Waiting, { tell, tellFault, tellPending, approval, issuance }: Patience): { readonly tell: number; readonly end: number } {
  if (fault === 'not_approved') return { tell, end: approval };
  if (fault === 'not_taken') return { tell, end: issuance };
  return { tell: fault === 'pending' ? tellPending : tellFault, end: issuance };
}
