import type { Caller } from '../attestation/caller.ts';
import type { Who } from '../events.ts';

const POD_OWNER = 'pod:';

/** The caller, as facts name it. Its pod is the one whose share of the limits it uses. */
export function whoOf({ uid, pid, owner }: Pick<Caller, 'uid' | 'pid' | 'owner'>): Who {
  return owner.startsWith(POD_OWNER) ? { uid, pid, podUid: owner.slice(POD_OWNER.length) } : { uid, pid };
}
