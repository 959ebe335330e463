import { readFileSync } from 'node:fs';
import koffi from 'koffi';
import { openKernel } from '../../src/kernel.ts';

// Says what the kernel thinks of this process before and after hardening.

const prctl: (option: number, ...rest: number[]) => number = koffi.load(null).func('int prctl(int, long, long, long, long)');

function state(): object {
  const core = /^Max core file size +(\S+) +(\S+)/m.exec(readFileSync('/proc/self/limits', 'latin1'))?.slice(1);
  return { dumpable: prctl(3, 0, 0, 0, 0), noNewPrivileges: prctl(39, 0, 0, 0, 0), core };
}

console.log(JSON.stringify(state()));
openKernel().harden();
console.log(JSON.stringify(state()));
