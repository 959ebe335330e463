import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { runProgram } from '../run-program.ts';
import { parseLines, type Line } from '../workloads.ts';

/** A root that no kubelet knows, so that none clears it up. */
export const CGROUP_ROOT = '/signet-e2e';
const MOUNT = '/sys/fs/cgroup';
const CONTAINER = 'c0'.repeat(32);

/** Runs the workload program once as a process of a pod, which is in no other way real: its cgroups say so. */
export async function callFromPod(program: string, podUid: string, endpoint: string): Promise<Line> {
  const directories = hierarchies().map((hierarchy) => make(join(hierarchy, CGROUP_ROOT, `pod${podUid}`, CONTAINER)));
  const enter = directories.map((directory) => `echo $$ > ${directory}/cgroup.procs`).join('; ');
  try {
    const text = await runProgram(['sh', '-c', `${enter}; exec ${program} once`], { env: { SPIFFE_ENDPOINT_SOCKET: endpoint } });
    const [line] = parseLines(text);
    if (line === undefined) throw new Error('the program printed nothing');
    return line;
  } finally {
    for (const directory of directories) [directory, dirname(directory)].forEach((each) => rmdirSync(each));
  }
}

export function makeCgroupRoot(): void {
  for (const hierarchy of hierarchies()) make(join(hierarchy, CGROUP_ROOT));
}

export function removeCgroupRoot(): void {
  for (const hierarchy of hierarchies()) if (existsSync(join(hierarchy, CGROUP_ROOT))) rmdirSync(join(hierarchy, CGROUP_ROOT));
}

/** Of this process: `/sys/fs/cgroup/memory` and its like of v1, `/sys/fs/cgroup/unified` of a hybrid, `/sys/fs/cgroup` of v2. */
function hierarchies(): readonly string[] {
  const lines = readFileSync('/proc/self/cgroup', 'utf8').trim().split('\n');
  const names = lines.map((line) => (line.split(':')[1] ?? '').replace(/^name=/, ''));
  return names
    .map((name) => join(MOUNT, name === '' && names.length > 1 ? 'unified' : name))
    .filter((path) => existsSync(join(path, 'cgroup.procs')));
}

/** A new cpuset of v1 is empty, and a process cannot be in an empty one. */
function make(directory: string): string {
  if (existsSync(directory)) return directory;
  const parent = make(dirname(directory));
  mkdirSync(directory);
  for (const set of ['cpuset.cpus', 'cpuset.mems']) {
    const inherited = join(parent, set);
    if (existsSync(inherited) && existsSync(join(directory, set)))
      writeFileSync(join(directory, set), readFileSync(inherited, 'utf8'));
  }
  return directory;
}
