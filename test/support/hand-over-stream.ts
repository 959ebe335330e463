import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readSync, writeSync } from 'node:fs';
import net from 'node:net';
import koffi from 'koffi';
import { descriptorOf } from '../../src/kernel.ts';
import { x509Request } from './workload-request.ts';

/**
 * A caller that leaves its socket to others: `node hand-over-stream.ts SOCKET [UID] [later]`. Opens FetchX509SVID and says
 * `message` when it was answered; with `later` only connects and says `connected`. Told `leave [UID]`, it leaves the socket to a
 * child (of that user) that reads on, and ends; told `exec PATH` it becomes that program, with the socket as
 * standard output.
 */
const [socketPath = '', uid, when] = process.argv.slice(2);
if (uid !== undefined) {
  process.setgroups?.([]);
  process.setgid?.(Number(uid));
  process.setuid?.(Number(uid));
}
const socket = net.connect(socketPath);
await once(socket, 'connect');
if (when !== 'later') {
  socket.write(x509Request());
  await until((bytes) => bytes.includes('spiffe://example.org/'));
  say('message');
} else {
  say('connected');
}
const [command, argument] = readLine().split(' ');
if (command === 'leave') leave(argument === undefined ? undefined : Number(argument));
else become(argument ?? '');

async function until(isThere: (bytes: Buffer) => boolean): Promise<void> {
  let bytes = Buffer.alloc(0);
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
    bytes = Buffer.concat([bytes, chunk as Buffer]);
    if (isThere(bytes)) return;
  }
}

function leave(heirUid: number | undefined): never {
  const as = heirUid === undefined ? {} : { uid: heirUid, gid: heirUid };
  const heir = spawn('cat', { stdio: [descriptorOf(socket), 'ignore', 'ignore'], detached: true, ...as });
  say(String(heir.pid));
  process.exit(0);
}

/** The program copies the rest of its standard input to the socket: nothing is asked before the kernel has changed its user. */
function become(path: string): never {
  const lib = koffi.load(null);
  const dup2: (from: number, to: number) => number = lib.func('int dup2(int, int)');
  const fcntl: (fd: number, command: number, value: number) => number = lib.func('int fcntl(int, int, int)');
  const execv: (path: string, argv: (string | null)[]) => number = lib.func('int execv(const char *, const char **)');
  dup2(descriptorOf(socket), 1);
  // Node marks its standard streams close-on-exec.
  fcntl(0, 2, 0);
  execv(path, [path, null]);
  throw new Error(`execv: errno ${koffi.errno()}`);
}

function readLine(): string {
  let line = '';
  const octet = Buffer.alloc(1);
  while (readSync(0, octet) === 1 && octet[0] !== 10) line += octet.toString();
  return line;
}

function say(line: string): void {
  writeSync(1, `${line}\n`);
}
