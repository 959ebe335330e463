package main

import (
	"time"

	"golang.org/x/sys/unix"
)

// plain is the floor under a fan-out: the same bytes to as many Unix sockets by nothing but write(2), read by the same kind of loop.
type plain struct {
	WritesMs float64 `json:"writes_ms"` // the writes alone, one after the other
	SpreadMs float64 `json:"spread_ms"` // first to last, as the reader saw them
}

// plainWrites takes the median of some rounds, on the thread of a reader and one of a writer.
func plainWrites(n, bytes int) (*plain, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(epoll)
	writers := make([]int, 0, n)
	for range n {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		defer unix.Close(pair[0])
		defer unix.Close(pair[1])
		event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(pair[1])}
		if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, pair[1], &event); err != nil {
			return nil, err
		}
		writers = append(writers, pair[0])
	}
	var rounds []plain
	for range 5 {
		round, err := plainRound(epoll, writers, make([]byte, bytes))
		if err != nil {
			return nil, err
		}
		rounds = append(rounds, *round)
	}
	return &plain{
		WritesMs: medianOf(rounds, func(p plain) float64 { return p.WritesMs }),
		SpreadMs: medianOf(rounds, func(p plain) float64 { return p.SpreadMs }),
	}, nil
}

func plainRound(epoll int, writers []int, message []byte) (*plain, error) {
	took := make(chan time.Duration, 1)
	go func() {
		start := time.Now()
		for _, fd := range writers {
			// What is not taken is missed by the reader.
			_, _ = unix.Write(fd, message)
		}
		took <- time.Since(start)
	}()
	var first, last time.Time
	buffer := make([]byte, 256<<10)
	events := make([]unix.EpollEvent, 256)
	until := time.Now().Add(10 * time.Second)
	for left := len(writers) * len(message); left > 0 && time.Now().Before(until); {
		ready, err := unix.EpollWait(epoll, events, 1000)
		if err != nil && err != unix.EINTR {
			return nil, err
		}
		for i := range max(ready, 0) {
			size, err := unix.Read(int(events[i].Fd), buffer)
			if err != nil {
				return nil, err
			}
			last = time.Now()
			if first.IsZero() {
				first = last
			}
			left -= size
		}
	}
	return &plain{float64((<-took).Nanoseconds()) / 1e6, float64(last.Sub(first).Nanoseconds()) / 1e6}, nil
}
