import { spawn } from 'node:child_process';
import { readSync, writeSync } from 'node:fs';
import koffi from 'koffi';
import type { PeerOptions } from './kernel-processes.ts';

// A process that connects to a Unix socket with plain system calls, so that its descriptors survive an exec, and then obeys
// lines on standard input. It ends with standard input.

const lib = koffi.load(null);
const socket: (domain: number, type: number, protocol: number) => number = lib.func('int socket(int, int, int)');
const connect: (fd: number, address: Buffer, length: number) => number = lib.func('int connect(int, void *, unsigned int)');
const fcntl: (fd: number, command: number, value: number) => number = lib.func('int fcntl(int, int, int)');
const execv: (path: string, argv: (string | null)[]) => number = lib.func('int execv(const char *, const char **)');

const options = JSON.parse(process.argv[2] ?? '{}') as PeerOptions;
if (options.groups !== undefined) process.setgroups?.([...options.groups]);
if (options.gid !== undefined) process.setgid?.(options.gid);
if (options.uid !== undefined) process.setuid?.(options.uid);

const address = Buffer.concat([Buffer.from([1, 0]), Buffer.from(options.socket), Buffer.from([0])]);
const sockets: number[] = [];
for (let i = 0; i < (options.connections ?? 1); i++) {
  const fd = socket(1, 1, 0);
  if (connect(fd, address, address.length) !== 0) throw new Error(`connect: errno ${koffi.errno()}`);
  sockets.push(fd);
}
const [first = -1] = sockets;
say('connected');

for (;;) {
  const [command, argument = ''] = readLine().split(' ');
  if (command === 'read') read(Number(argument));
  else if (command === 'pass') pass(argument === '' ? undefined : Number(argument));
  else if (command === 'exec') exec(argument);
  else process.exit(0);
}

function read(count: number): void {
  for (let left = count; left > 0; ) left -= readSync(first, Buffer.alloc(left));
  say('read');
}

/** Leaves the socket to another process, which ends with the same standard input, and ends. */
function pass(uid: number | undefined): never {
  const heir = spawn('cat', { stdio: ['inherit', 'ignore', 'ignore', first], ...(uid === undefined ? {} : { uid, gid: uid }) });
  say(`passed ${heir.pid}`);
  process.exit(0);
}

/** Node marks its standard streams close-on-exec. */
function exec(path: string): never {
  for (const fd of [0, 1, 2]) fcntl(fd, 2, 0);
  execv(path, [path, null]);
  throw new Error(`execv: errno ${koffi.errno()}`);
}

function say(line: string): void {
  writeSync(1, `${line}\n`);
}

function readLine(): string {
  const byte = Buffer.alloc(1);
  let line = '';
  while (readSync(0, byte) === 1 && byte[0] !== 0x0a) line += byte.toString('latin1');
  return line;
}
