package main

import (
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// loop drives any number of connections from one thread with epoll: the load generator shares the machine with what it
// measures, and a goroutine for each connection would cost more than the calls.
type loop struct {
	epoll   int
	socket  string
	byFD    map[int32]*conn
	waiting []*conn // their connect found the listener's queue full
	buffer  []byte
	events  []unix.EpollEvent
	patient atomic.Bool
}

// conn is one connection in a loop.
type conn struct {
	*wire
	loop    *loop
	fd      int
	writing bool // epoll watches for room
}

func newLoop(socket string) (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return &loop{epoll: epoll, socket: socket, byFD: map[int32]*conn{}, buffer: make([]byte, 256<<10),
		events: make([]unix.EpollEvent, 256)}, nil
}

// dial begins a connection. What is begun on it leaves with the next flush; failures reach its calls.
func (l *loop) dial() *conn {
	c := &conn{wire: newWire(), loop: l, fd: -1}
	return c
}

// flush connects where that is still to be done and writes what waits.
func (c *conn) flush() {
	if c.fd < 0 && c.dead == nil {
		if !c.connect() {
			return
		}
	}
	for len(c.out) > 0 && c.dead == nil {
		n, err := writeSocket(c.fd, c.out)
		if err == unix.EINTR {
			continue
		}
		if err == unix.EAGAIN {
			c.watch(true)
			return
		}
		if err != nil {
			c.lost("write", err)
			return
		}
		c.out = append(c.out[:0], c.out[n:]...)
	}
	if c.writing && c.dead == nil {
		c.watch(false)
	}
}

func (c *conn) connect() bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		c.lost("socket", err)
		return false
	}
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: c.loop.socket})
	if err == unix.EAGAIN {
		unix.Close(fd)
		c.loop.waiting = append(c.loop.waiting, c)
		return false
	}
	if err == nil {
		event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
		err = unix.EpollCtl(c.loop.epoll, unix.EPOLL_CTL_ADD, fd, &event)
	}
	if err != nil {
		unix.Close(fd)
		c.lost("connect", err)
		return false
	}
	c.fd = fd
	c.loop.byFD[int32(fd)] = c
	return true
}

func (c *conn) watch(room bool) {
	if c.writing == room {
		return
	}
	c.writing = room
	events := uint32(unix.EPOLLIN)
	if room {
		events |= unix.EPOLLOUT
	}
	event := unix.EpollEvent{Events: events, Fd: int32(c.fd)}
	if err := unix.EpollCtl(c.loop.epoll, unix.EPOLL_CTL_MOD, c.fd, &event); err != nil {
		c.lost("epoll", err)
	}
}

func (c *conn) lost(what string, err error) {
	c.wire.fail(&failure{"Unavailable", what + ": " + err.Error()}, time.Now())
	c.close()
}

// close ends the connection without a word to its calls.
func (c *conn) close() {
	if c.dead == nil {
		c.dead = &failure{"Canceled", "closed by the client"}
	}
	if c.fd >= 0 {
		delete(c.loop.byFD, int32(c.fd))
		unix.Close(c.fd)
		c.fd = -1
	}
}

// step waits for events, at most until `until`, and handles them. Whatever the handlers begin is flushed.
func (l *loop) step(until time.Time) error {
	timeout := time.Until(until)
	if len(l.waiting) > 0 {
		timeout = min(timeout, time.Millisecond)
	}
	// Rounded up: a wait of less than a millisecond would spin.
	wait := epollWait
	if l.patient.Load() {
		wait = unix.EpollWait
	}
	n, err := wait(l.epoll, l.events, max(int((timeout+time.Millisecond-1)/time.Millisecond), 0))
	if err != nil && err != unix.EINTR {
		return err
	}
	for i := range max(n, 0) {
		if c := l.byFD[l.events[i].Fd]; c != nil {
			c.read()
		}
	}
	again := l.waiting
	l.waiting = nil
	for _, c := range again {
		c.flush()
	}
	return nil
}

func (c *conn) read() {
	n, err := readSocket(c.fd, c.loop.buffer)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
	case err != nil:
		c.lost("read", err)
		return
	case n == 0:
		c.lost("read", errors.New("the server has closed the connection"))
		return
	default:
		if c.feed(c.loop.buffer[:n], time.Now()) != nil {
			c.close()
			return
		}
	}
	c.flush()
}

// run steps until done says so or the time is up, and tells which. It asks at least each second.
func (l *loop) run(done func() bool, until time.Time) (bool, error) {
	for !done() {
		now := time.Now()
		if !now.Before(until) {
			return false, nil
		}
		next := now.Add(time.Second)
		if next.After(until) {
			next = until
		}
		if err := l.step(next); err != nil {
			return false, err
		}
	}
	return true, nil
}

// end closes every connection.
func (l *loop) end() {
	for _, c := range l.byFD {
		c.close()
	}
	unix.Close(l.epoll)
}
