import { openSync } from 'node:fs';
import { openKernel } from '../../src/kernel.ts';

// Tries to lock the file given and says whether it did. Ends, and lets go, with standard input.

process.stdin.on('end', () => process.exit(0)).resume();
console.log(openKernel().tryLock(openSync(process.argv[2] ?? '', 'r')));
