import { readSync, writeSync } from 'node:fs';
import koffi from 'koffi';

// Connects to the Unix socket given, then ends its main thread alone when a line comes. Node's other threads go on and hold the
// connection.

const lib = koffi.load(null);
const socket: (domain: number, type: number, protocol: number) => number = lib.func('int socket(int, int, int)');
const connect: (fd: number, address: Buffer, length: number) => number = lib.func('int connect(int, void *, unsigned int)');
/** exit(2) of one thread. pthread_exit(3) would unwind frames that must not be unwound. */
const exitThread: (number: number, status: number) => number = lib.func('long syscall(long, long)');
const SYS_EXIT = process.arch === 'x64' ? 60 : 93;

const address = Buffer.concat([Buffer.from([1, 0]), Buffer.from(process.argv[2] ?? ''), Buffer.from([0])]);
if (connect(socket(1, 1, 0), address, address.length) !== 0) throw new Error(`connect: errno ${koffi.errno()}`);
writeSync(1, 'connected\n');
readSync(0, Buffer.alloc(1));
exitThread(SYS_EXIT, 0);
