import { createRequire } from 'node:module';
import type { Socket } from 'node:net';
import { SignetError, messageOf, type ErrorCode } from './errors.ts';

/** Who made a connection, as the kernel recorded it when the peer called connect(2). */
export interface PeerCredentials {
  /** In the agent's own pid namespace; 0 when the peer is in one that the agent cannot see. */
  readonly pid: number;
  /** Effective user ID; `NO_ID` when the socket has no peer credentials (not a connected Unix socket). */
  readonly uid: number;
  readonly gid: number;
  /** Supplementary groups. */
  readonly groups: readonly number[];
}

/** The user or group ID that stands for none: `(uid_t)-1`. */
export const NO_ID = 0xffff_ffff;

/** The only door to system calls that Node does not offer. Nothing behind it waits. Every failure is a SignetError. */
export interface Kernel {
  /** True where the kernel hands out the pidfd of a peer (SO_PEERPIDFD, Linux 6.5). Found once, at construction. */
  readonly hasPeerPidfd: boolean;
  /** The next connection that waits at the listening socket `fd`, close-on-exec and never blocking; undefined when there is none, or it cannot be taken. */
  accept(fd: number): number | undefined;
  /** SO_PEERCRED and SO_PEERGROUPS. @throws SignetError `kernel` */
  peerCredentials(fd: number): PeerCredentials;
  /**
   * A close-on-exec pidfd of the peer: SO_PEERPIDFD, or pidfd_open(2) of `pid` where the kernel lacks it. The caller closes it.
   *
   * @throws SignetError `caller_gone` when that process has been reaped, `kernel` for all else.
   */
  peerPidfd(fd: number, pid: number): number;
  /**
   * The effective user ID of the process now (PIDFD_GET_INFO); undefined where the kernel cannot tell (before Linux 6.13).
   *
   * @throws SignetError `caller_gone` when it has been reaped, `kernel` for all else.
   */
  effectiveUid(pidfd: number): number | undefined;
  /** True once the process has ended, reaped or not. @throws SignetError `kernel` when `pidfd` is not open. */
  hasExited(pidfd: number): boolean;
  /** @throws SignetError `kernel` */
  openExitWatch(): ExitWatch;
  /**
   * What the peer of a Unix stream socket has not read yet (SIOCOUTQ): 0 when it has read everything, else the kernel memory
   * held for it in bytes, which is more than what was written.
   */
  unreadBytes(fd: number): number;
  /** An exclusive flock(2) on the open file. False when another open file holds one. @throws SignetError `kernel` */
  tryLock(fd: number): boolean;
  unlock(fd: number): void;
  /** close(2). @throws SignetError `kernel` when it is not open: some other owner's number would be next. */
  closeDescriptor(fd: number): void;
  /** No core dumps, no ptrace and no /proc reads by the same user, no privileges gained by exec from this thread. */
  harden(): void;
  /** The soft limit of open descriptors (RLIMIT_NOFILE); Infinity when there is none. */
  descriptorLimit(): number;
  /** Gives the memory back to the system that malloc keeps for later (malloc_trim(3)). Nothing where the C library has no such function. */
  trimMemory(): void;
}

/** Many pidfds, one epoll instance. */
export interface ExitWatch {
  /** `poll` reports `token` once, when the process has ended. @throws SignetError `kernel` (EEXIST: it is watched already) */
  add(pidfd: number, token: number): void;
  /** Does nothing for a pidfd that is not watched. */
  remove(pidfd: number): void;
  /** Tokens of the processes that have ended since the last call. Never waits. */
  poll(): number[];
  close(): void;
}

/** The C functions used, each returning -1 and setting errno on failure. Pointers are typed arrays, passed by reference. */
export interface Libc {
  getsockopt(fd: number, level: number, name: number, value: ArrayBufferView, length: Uint32Array): number;
  accept4(fd: number, address: null, length: null, flags: number): number;
  socketpair(domain: number, type: number, protocol: number, fds: Int32Array): number;
  /** syscall(2) with two arguments. */
  syscall(number: number, first: number, second: number): number;
  poll(fds: ArrayBufferView, count: number, timeoutMs: number): number;
  epoll_create1(flags: number): number;
  epoll_ctl(epfd: number, operation: number, fd: number, event: ArrayBufferView): number;
  epoll_wait(epfd: number, events: ArrayBufferView, count: number, timeoutMs: number): number;
  ioctl(fd: number, request: number, value: ArrayBufferView): number;
  flock(fd: number, operation: number): number;
  close(fd: number): number;
  prctl(option: number, second: number, third: number, fourth: number, fifth: number): number;
  getrlimit(resource: number, limit: BigUint64Array): number;
  setrlimit(resource: number, limit: BigUint64Array): number;
  /** Undefined where the C library is not glibc. */
  malloc_trim: ((pad: number) => number) | undefined;
  /** The name of the calling thread's errno: `ENOENT`. */
  errno(): string;
}

// Linux UAPI, the same on x86-64 and arm64.
const AF_UNIX = 1;
const SOCK_STREAM_CLOEXEC = 0o2000001;
const SOCK_NONBLOCK_CLOEXEC = 0o2004000;
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const SO_PEERGROUPS = 59;
const SO_PEERPIDFD = 77;
const SYS_PIDFD_OPEN = 434;
const POLLIN = 0x1;
const POLLNVAL = 0x20;
const EPOLL_CLOEXEC = 0o2000000;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLLIN = 0x1;
const EPOLLONESHOT = 0x4000_0000;
const SIOCOUTQ = 0x5411;
/** _IOWR(0xff, 11, struct pidfd_info) in its first size of 64 bytes. */
const PIDFD_GET_INFO = 0xc040_ff0b;
const PIDFD_INFO_CREDS = 0x2;
/** `euid` in struct pidfd_info, in units of four bytes: mask and cgroupid have eight each; pid, tgid, ppid, ruid and rgid follow. */
const PIDFD_INFO_EUID = 9;
const LOCK_EX_NB = 6;
const LOCK_UN = 8;
const PR_SET_DUMPABLE = 4;
const PR_SET_NO_NEW_PRIVS = 38;
const RLIMIT_CORE = 4;
const RLIMIT_NOFILE = 7;
const RLIM_INFINITY = 0xffff_ffff_ffff_ffffn;

/** The peer's process is no more: no such process, no task behind the pid, or the number is a mere thread's by now. */
const GONE = new Set(['ESRCH', 'EINVAL', 'ENOENT']);

/** Not watched: never added, closed already, or its number is now that of a file which cannot be polled. */
const NOT_WATCHED = new Set(['ENOENT', 'EBADF', 'EPERM']);

/**
 * @param libc another set of C functions; by default the ones of this process.
 * @throws SignetError `kernel` on anything but Linux 5.3 or newer on x64 or arm64.
 */
export function openKernel(libc: Libc = loadLibc()): Kernel {
  return new LinuxKernel(libc);
}

/**
 * The descriptor under a connected socket, for use until the socket closes.
 *
 * @throws SignetError `kernel` when it has none (closed, or not a plain socket).
 */
export function descriptorOf(socket: Socket): number {
  const handle = (socket as unknown as { _handle?: { fd?: unknown } | null })._handle;
  const fd = handle?.fd;
  if (typeof fd === 'number' && fd >= 0) return fd;
  throw new SignetError('kernel', 'the socket has no descriptor: it is closed or not a plain socket');
}

class LinuxKernel implements Kernel {
  readonly hasPeerPidfd: boolean;
  readonly #libc: Libc;
  /** Arguments of calls, none of which outlasts its method: a new array for each would be most of what a connection costs the heap. */
  readonly #words = new Uint32Array(16);
  readonly #length = new Uint32Array(1);
  readonly #groups = new Uint32Array(32);
  #tellsUid = true;

  constructor(libc: Libc) {
    this.#libc = libc;
    this.hasPeerPidfd = this.#probePeerPidfd();
    if (this.hasPeerPidfd) return;
    const own = this.#check(libc.syscall(SYS_PIDFD_OPEN, process.pid, 0), 'pidfd_open (Linux 5.3 or newer is needed)');
    this.closeDescriptor(own);
  }

  accept(fd: number): number | undefined {
    const accepted = this.#libc.accept4(fd, null, null, SOCK_NONBLOCK_CLOEXEC);
    return accepted === -1 ? undefined : accepted;
  }

  peerCredentials(fd: number): PeerCredentials {
    this.#length[0] = 12;
    this.#check(this.#libc.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, this.#words, this.#length), 'getsockopt SO_PEERCRED');
    const [pid = 0, uid = NO_ID, gid = NO_ID] = this.#words;
    return { pid, uid, gid, groups: uid === NO_ID ? [] : this.#peerGroups(fd) };
  }

  peerPidfd(fd: number, pid: number): number {
    if (this.hasPeerPidfd) return this.#peerPidfd(fd);
    return this.#check(this.#libc.syscall(SYS_PIDFD_OPEN, pid, 0), 'pidfd_open', GONE);
  }

  effectiveUid(pidfd: number): number | undefined {
    if (!this.#tellsUid) return undefined;
    const info = this.#words.fill(0);
    info[0] = PIDFD_INFO_CREDS;
    if (this.#libc.ioctl(pidfd, PIDFD_GET_INFO, info) !== -1) {
      return ((info[0] ?? 0) & PIDFD_INFO_CREDS) === 0 ? undefined : info[PIDFD_INFO_EUID];
    }
    const name = this.#libc.errno();
    if (GONE.has(name) && name !== 'EINVAL') throw failure('ioctl PIDFD_GET_INFO', name, 'caller_gone');
    if (name === 'EBADF') throw failure('ioctl PIDFD_GET_INFO', name);
    this.#tellsUid = false;
    return undefined;
  }

  hasExited(pidfd: number): boolean {
    // struct pollfd { int fd; short events; short revents; }
    const request = this.#words;
    request[0] = pidfd;
    request[1] = POLLIN;
    this.#check(this.#retry(() => this.#libc.poll(request, 1, 0)), 'poll');
    const revents = (request[1] ?? 0) >>> 16;
    if ((revents & POLLNVAL) !== 0) throw new SignetError('kernel', `poll: EBADF: descriptor ${pidfd} is not open`);
    return revents !== 0;
  }

  openExitWatch(): ExitWatch {
    return new EpollExitWatch(this.#libc, this.#check(this.#libc.epoll_create1(EPOLL_CLOEXEC), 'epoll_create1'));
  }

  unreadBytes(fd: number): number {
    this.#words[0] = 0;
    this.#check(this.#libc.ioctl(fd, SIOCOUTQ, this.#words), 'ioctl SIOCOUTQ');
    return this.#words[0] ?? 0;
  }

  tryLock(fd: number): boolean {
    if (this.#retry(() => this.#libc.flock(fd, LOCK_EX_NB)) !== -1) return true;
    const name = this.#libc.errno();
    if (name === 'EAGAIN' || name === 'EWOULDBLOCK') return false;
    throw failure('flock', name);
  }

  unlock(fd: number): void {
    this.#check(this.#libc.flock(fd, LOCK_UN), 'flock');
  }

  closeDescriptor(fd: number): void {
    // Linux has let go of the descriptor even when close says EINTR.
    if (this.#libc.close(fd) === -1 && this.#libc.errno() !== 'EINTR') throw failure('close', this.#libc.errno());
  }

  harden(): void {
    this.#check(this.#libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), 'prctl PR_SET_DUMPABLE');
    this.#check(this.#libc.setrlimit(RLIMIT_CORE, new BigUint64Array(2)), 'setrlimit RLIMIT_CORE');
    this.#check(this.#libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 'prctl PR_SET_NO_NEW_PRIVS');
  }

  descriptorLimit(): number {
    const limit = new BigUint64Array(2);
    this.#check(this.#libc.getrlimit(RLIMIT_NOFILE, limit), 'getrlimit RLIMIT_NOFILE');
    const [soft = 0n] = limit;
    return soft === RLIM_INFINITY ? Infinity : Number(soft);
  }

  trimMemory(): void {
    this.#libc.malloc_trim?.(0);
  }

  #peerGroups(fd: number): number[] {
    let groups = this.#groups;
    const length = this.#length;
    for (;;) {
      length[0] = groups.byteLength;
      const result = this.#libc.getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, length);
      const count = (length[0] ?? 0) / Uint32Array.BYTES_PER_ELEMENT;
      if (result !== -1) return [...groups.subarray(0, count)];
      const name = this.#libc.errno();
      // With ERANGE the kernel says how long the buffer must be.
      if (name !== 'ERANGE' || count <= groups.length) throw failure('getsockopt SO_PEERGROUPS', name);
      groups = new Uint32Array(count);
    }
  }

  #peerPidfd(fd: number): number {
    this.#words[0] = NO_ID;
    this.#length[0] = 4;
    this.#check(this.#libc.getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, this.#words, this.#length), 'getsockopt SO_PEERPIDFD', GONE);
    const pidfd = (this.#words[0] ?? NO_ID) | 0;
    if (pidfd < 0) throw new SignetError('kernel', 'getsockopt SO_PEERPIDFD: the kernel returned no descriptor');
    return pidfd;
  }

  #probePeerPidfd(): boolean {
    const pair = new Int32Array(2);
    this.#check(this.#libc.socketpair(AF_UNIX, SOCK_STREAM_CLOEXEC, 0, pair), 'socketpair');
    const [left = -1, right = -1] = pair;
    const value = new Int32Array([-1]);
    const result = this.#libc.getsockopt(left, SOL_SOCKET, SO_PEERPIDFD, value, new Uint32Array([value.byteLength]));
    const name = result === -1 ? this.#libc.errno() : undefined;
    this.closeDescriptor(left);
    this.closeDescriptor(right);
    if (name === 'ENOPROTOOPT') return false;
    if (name !== undefined) throw failure('getsockopt SO_PEERPIDFD', name);
    this.closeDescriptor(value[0] ?? -1);
    return true;
  }

  /** Calls again while a signal handler ran in between; a call that does not wait may still say EINTR. */
  #retry(call: () => number): number {
    for (;;) {
      const result = call();
      if (result !== -1 || this.#libc.errno() !== 'EINTR') return result;
    }
  }

  #check(result: number, what: string, gone?: ReadonlySet<string>): number {
    if (result !== -1) return result;
    const name = this.#libc.errno();
    throw failure(what, name, gone?.has(name) === true ? 'caller_gone' : 'kernel');
  }
}

/** struct epoll_event { uint32_t events; uint64_t data; }, packed on x86-64 only. The token travels in `data` as a double. */
const DATA_OFFSET = process.arch === 'x64' ? 4 : 8;
const EVENT_SIZE = DATA_OFFSET + 8;
const EVENTS_PER_CALL = 128;

class EpollExitWatch implements ExitWatch {
  readonly #libc: Libc;
  readonly #epfd: number;
  readonly #event = new DataView(new ArrayBuffer(EVENT_SIZE));
  readonly #events = new DataView(new ArrayBuffer(EVENT_SIZE * EVENTS_PER_CALL));
  #closed = false;

  constructor(libc: Libc, epfd: number) {
    this.#libc = libc;
    this.#epfd = epfd;
  }

  add(pidfd: number, token: number): void {
    this.#assertOpen();
    const event = this.#event;
    // A pidfd stays readable once its process has ended: one shot reports it once.
    event.setUint32(0, EPOLLIN | EPOLLONESHOT, true);
    event.setFloat64(DATA_OFFSET, token, true);
    if (this.#libc.epoll_ctl(this.#epfd, EPOLL_CTL_ADD, pidfd, event) === -1) throw failure('epoll_ctl ADD', this.#libc.errno());
  }

  remove(pidfd: number): void {
    this.#assertOpen();
    if (this.#libc.epoll_ctl(this.#epfd, EPOLL_CTL_DEL, pidfd, this.#event) !== -1) return;
    const name = this.#libc.errno();
    if (!NOT_WATCHED.has(name)) throw failure('epoll_ctl DEL', name);
  }

  poll(): number[] {
    this.#assertOpen();
    const tokens: number[] = [];
    for (;;) {
      const count = this.#libc.epoll_wait(this.#epfd, this.#events, EVENTS_PER_CALL, 0);
      if (count === -1 && this.#libc.errno() === 'EINTR') continue;
      if (count === -1) throw failure('epoll_wait', this.#libc.errno());
      for (let i = 0; i < count; i++) tokens.push(this.#events.getFloat64(i * EVENT_SIZE + DATA_OFFSET, true));
      if (count < EVENTS_PER_CALL) return tokens;
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#libc.close(this.#epfd);
  }

  /** The number of a closed epoll instance may be another file's by now. */
  #assertOpen(): void {
    if (this.#closed) throw new SignetError('stopped', 'the exit watch is closed');
  }
}

function failure(what: string, name: string, code: ErrorCode = 'kernel'): SignetError {
  return new SignetError(code, `${what}: ${name}`);
}

type Koffi = typeof import('koffi').default;

/** Loaded on first use, so that a machine without a binary for it gets a message instead of a failed import. */
function loadKoffi(): Koffi {
  if (process.platform !== 'linux' || (process.arch !== 'x64' && process.arch !== 'arm64')) {
    const here = `${process.platform} ${process.arch}`;
    throw new SignetError('kernel', `the agent runs on Linux on x64 or arm64, not on ${here}; use a Linux machine or container`);
  }
  try {
    return createRequire(import.meta.url)('koffi') as Koffi;
  } catch (error) {
    const advice = 'install the dependencies on this machine, optional ones included';
    throw new SignetError('kernel', `koffi cannot be loaded: ${messageOf(error)}; ${advice}`, { cause: error });
  }
}

/**
 * The C functions of this process. Variadic ones are declared with fixed arguments: both supported ABIs pass integers and
 * pointers alike either way.
 *
 * @throws SignetError `kernel` on a platform that is not supported.
 */
export function loadLibc(): Libc {
  const koffi = loadKoffi();
  const lib = koffi.load(null);
  const names = new Map(Object.entries(koffi.os.errno).map(([name, value]) => [value, name]));
  return {
    getsockopt: lib.func('int getsockopt(int, int, int, void *, void *)'),
    accept4: lib.func('int accept4(int, void *, void *, int)'),
    socketpair: lib.func('int socketpair(int, int, int, void *)'),
    syscall: lib.func('long syscall(long, long, long)'),
    poll: lib.func('int poll(void *, unsigned long, int)'),
    epoll_create1: lib.func('int epoll_create1(int)'),
    epoll_ctl: lib.func('int epoll_ctl(int, int, int, void *)'),
    epoll_wait: lib.func('int epoll_wait(int, void *, int, int)'),
    ioctl: lib.func('int ioctl(int, unsigned long, void *)'),
    flock: lib.func('int flock(int, int)'),
    close: lib.func('int close(int)'),
    prctl: lib.func('int prctl(int, unsigned long, unsigned long, unsigned long, unsigned long)'),
    getrlimit: lib.func('int getrlimit(int, void *)'),
    setrlimit: lib.func('int setrlimit(int, void *)'),
    malloc_trim: optional(() => lib.func('int malloc_trim(size_t)')),
    errno: () => names.get(koffi.errno()) ?? `errno ${koffi.errno()}`,
  };
}

/** A function that a C library may lack. */
function optional<T>(find: () => T): T | undefined {
  try {
    return find();
  } catch {
    return undefined;
  }
}
