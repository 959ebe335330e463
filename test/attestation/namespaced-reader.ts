import { once } from 'node:events';
import { learnCgroupRoot } from '../../src/attestation/cgroup-root.ts';
import { readPlacement } from '../../src/attestation/placement.ts';
import { messageOf } from '../../src/errors.ts';

// Places processes as an agent in a private cgroup namespace does. Arguments: the UID of its pod, the root or '', and pids.

const [podUid = '', configured = '', ...pids] = process.argv.slice(2);
const root = learnCgroupRoot({ podUid, ...(configured === '' ? {} : { configured }) });
console.log(JSON.stringify({ path: root.path ?? null, depths: [...root.depths], placements: pids.map((pid) => place(Number(pid))) }));
process.stdin.resume();
await once(process.stdin, 'end');

function place(pid: number): object {
  try {
    return readPlacement(pid, root).placement;
  } catch (error) {
    return { error: messageOf(error) };
  }
}
