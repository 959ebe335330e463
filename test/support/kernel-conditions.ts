import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import test, { type Implementation } from 'ava';

const isRoot = process.getuid?.() === 0;
export const needsRoot: Need = [isRoot, 'needs root'];
const canUnshare = (...flags: string[]): boolean => isRoot && spawnSync('unshare', [...flags, 'true']).status === 0;
export const needsPidNamespace: Need = [canUnshare('--pid', '--fork'), 'needs root and unshare --pid'];
export const needsMountNamespace: Need = [canUnshare('--mount'), 'needs root and unshare --mount'];
export const needsSetuid: Need = [isRoot && !isNosuid(), 'needs root and set-user-ID files in the directory for temporary files'];

type Need = readonly [met: boolean, reason: string];

/** A test that is skipped, with the reason in its title, where the machine cannot run it. */
export function testIf([met, reason]: Need, title: string, run: Implementation<[]>): void {
  if (met) test.serial(title, run);
  else test.serial.skip(`${title} (skipped: ${reason})`, run);
}

/** True when the file system of the directory for temporary files ignores the set-user-ID bit. */
function isNosuid(): boolean {
  const inside = (mount: string): boolean => mount === '/' || `${tmpdir()}/`.startsWith(`${mount}/`);
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n').map((line) => line.split(' '));
  const [own] = mounts.filter((fields) => inside(fields[4] ?? '')).sort((a, b) => (b[4] ?? '').length - (a[4] ?? '').length);
  return own?.[5]?.split(',').includes('nosuid') ?? true;
}
