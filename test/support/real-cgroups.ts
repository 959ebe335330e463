import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { until } from './kernel-processes.ts';

/** One mounted hierarchy. */
export interface Hierarchy {
  readonly mount: string;
  /** As in /proc/<pid>/cgroup: empty for cgroup v2. */
  readonly controllers: string;
}

/** All hierarchies that this process is in and can make cgroups in, or why that cannot be tested here. */
export const hierarchies: readonly Hierarchy[] | string = findHierarchies();
export const needsCgroups = [typeof hierarchies !== 'string', typeof hierarchies === 'string' ? hierarchies : ''] as const;

function findHierarchies(): readonly Hierarchy[] | string {
  if (process.getuid?.() !== 0) return 'needs root';
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n').flatMap(mountOf);
  const lines = readFileSync('/proc/self/cgroup', 'utf8').trimEnd().split('\n').map((line) => line.split(':')[1] ?? '');
  const found = lines.flatMap((controllers) => mounts.find((one) => sameControllers(one.controllers, controllers)) ?? []);
  if (found.length < lines.length) return 'needs every cgroup hierarchy mounted from its root';
  const probe = `signet-probe-${randomBytes(4).toString('hex')}`;
  try {
    for (const { mount } of found) {
      mkdirSync(join(mount, probe));
      rmdirSync(join(mount, probe));
    }
    return found;
  } catch {
    return 'needs cgroup file systems that can be written';
  }
}

/** Fields: 3 the root inside the file system, 4 the mount point; after the dash: type, source, options (proc_pid_mountinfo(5)). */
function mountOf(line: string): Hierarchy[] {
  const [before = '', after = ''] = line.split(' - ');
  const [root, mount = ''] = before.split(' ').slice(3);
  const [type, , options = ''] = after.split(' ');
  if (root !== '/' || (type !== 'cgroup' && type !== 'cgroup2')) return [];
  const isController = (option: string): boolean => !/^(?:rw|ro|xattr|clone_children|noprefix|release_agent=.*)$/.test(option);
  return [{ mount, controllers: type === 'cgroup2' ? '' : options.split(',').filter(isController).join(',') }];
}

function sameControllers(a: string, b: string): boolean {
  return a.split(',').sort().join() === b.split(',').sort().join();
}

/** Makes cgroups and removes them, whatever has become of the test. */
export class RealCgroups {
  /** A name of its own at the top of each hierarchy. */
  readonly root: string;
  readonly #tops = new Set<string>();

  /** Made before the processes that it holds, so that they have ended when it is removed: teardowns run backwards. */
  constructor(t: ExecutionContext) {
    this.root = `/kubepods-test-${randomBytes(4).toString('hex')}`;
    t.teardown(() => this.#remove());
  }

  /** Puts the process into `path`, by default in every hierarchy. */
  enter(path: string, pid: number, where: (hierarchy: Hierarchy) => boolean = () => true): void {
    for (const hierarchy of all().filter(where)) writeFileSync(join(this.make(hierarchy, path), 'cgroup.procs'), String(pid));
  }

  make({ mount, controllers }: Hierarchy, path: string): string {
    let directory = mount;
    for (const segment of path.split('/').filter(Boolean)) {
      const parent = directory;
      directory = join(parent, segment);
      if (existsSync(directory)) continue;
      this.#tops.add(join(mount, path.split('/')[1] ?? ''));
      mkdirSync(directory);
      // A cpuset of v1 takes no process before it has processors and memory.
      const needed = controllers.split(',').includes('cpuset') ? ['cpuset.cpus', 'cpuset.mems'] : [];
      for (const file of needed) writeFileSync(join(directory, file), readFileSync(join(parent, file)));
    }
    return directory;
  }

  async #remove(): Promise<void> {
    for (const top of this.#tops) await until(() => removed(top), `${top} can be removed`);
  }
}

function all(): readonly Hierarchy[] {
  if (typeof hierarchies === 'string') throw new Error(hierarchies);
  return hierarchies;
}

/** A cgroup is busy for a moment after its last process has been reaped. */
function removed(directory: string): boolean {
  if (!existsSync(directory)) return true;
  const inner = readdirSync(directory, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  if (!inner.map((entry) => removed(join(directory, entry.name))).every(Boolean)) return false;
  try {
    rmdirSync(directory);
    return true;
  } catch {
    return false;
  }
}
