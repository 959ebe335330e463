import type { Entry } from '../spiffe/entry.ts';
import { podUidOf } from '../spiffe/selector.ts';

/** The pod that an entry belongs to, as the facts about its SVIDs name it; nothing for an entry that belongs to none. */
export function boundPod(entry: Entry): { readonly podUid?: string } {
  const podUid = podUidOf(entry.selectors);
  return podUid === undefined ? {} : { podUid };
}
