package main

import (
	"context"
	"sync/atomic"
	"time"
)

// fetchLoad is a closed loop of connections that each fetch their first X509-SVID and close.
type fetchLoad struct {
	workers int
	bounds  bounds
	started *atomic.Int64
	// closing: the time includes the close.
	closing bool
	check   func(n int64, message []byte) error
}

func (f *fetchLoad) drive(ctx context.Context, o *options) (*tally, error) {
	l, err := newLoop(o.socket)
	if err != nil {
		return nil, err
	}
	defer l.end()
	if f.bounds.count == 0 || f.bounds.count > maxOperations {
		f.bounds.count = maxOperations
	}
	var sum tally
	begin := time.Now()
	end := begin.Add(f.bounds.time)
	more := func() bool {
		return ctx.Err() == nil && (f.bounds.time == 0 || time.Now().Before(end)) && f.started.Load() < int64(f.bounds.count)
	}
	idle, moved := f.workers, begin
	open := map[*conn]struct{}{}
	_, err = l.run(func() bool {
		for idle > 0 && more() {
			idle--
			f.fetch(l, open, func(at time.Time, took time.Duration, err error) {
				idle++
				moved = at
				sum.add(took, err)
				if err != nil {
					time.Sleep(time.Millisecond)
				}
			})
		}
		return len(open) == 0 || time.Since(moved) > o.timeout
	}, begin.Add(maxDuration))
	for range open {
		sum.fail("DeadlineExceeded", "no answer within "+o.timeout.String())
	}
	return &sum, err
}

// fetch begins one round; ended is called once.
func (f *fetchLoad) fetch(l *loop, open map[*conn]struct{}, ended func(at time.Time, took time.Duration, err error)) {
	n := f.started.Add(1)
	start := time.Now()
	c := l.dial()
	open[c] = struct{}{}
	over := func(at time.Time, err error) {
		if _, first := open[c]; !first {
			return
		}
		delete(open, c)
		ended(at, at.Sub(start), err)
	}
	c.begin(&call{
		path: pathX509, request: framed(nil),
		onMessage: func(_ *call, at time.Time, message []byte) {
			if f.closing {
				c.close()
				over(time.Now(), f.check(n, message))
				return
			}
			// The time counts to the read; what the check takes does not.
			err := f.check(n, message)
			c.close()
			over(at, err)
		},
		onEnd: func(_ *call, at time.Time, err error) {
			if err == nil {
				err = wrongAnswer("the stream ended without a message")
			}
			over(at, err)
			c.close()
		},
	})
	c.flush()
}

// sometimesWhole is the cheap check, and for one in 16 the whole one.
func sometimesWhole(n int64, message []byte) error {
	if n%16 != 1 {
		return isX509(message)
	}
	response, err := decodeX509(message)
	if err == nil {
		_, err = checkSVID(response, time.Now())
	}
	return err
}
