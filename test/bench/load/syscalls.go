package main

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The loop's system calls go past Go's scheduler: it would hand the thread's place to another one at each wait and look after it
// every 20 us, which costs more than the call itself. The scheduler's own signal interrupts a wait, so that it is not held up; as it comes each
// 10 ms, a loop that waits long or beside hundreds of other processes is `patient` and waits in the usual way.

func epollWait(epoll int, events []unix.EpollEvent, milliseconds int) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])),
		uintptr(len(events)), uintptr(milliseconds), 0, 0)
	return result(n, errno)
}

func readSocket(fd int, to []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&to[0])), uintptr(len(to)))
	return result(n, errno)
}

func writeSocket(fd int, from []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&from[0])), uintptr(len(from)))
	return result(n, errno)
}

func result(n uintptr, errno unix.Errno) (int, error) {
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}
