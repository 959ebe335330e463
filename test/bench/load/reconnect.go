package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"
)

// reconnectDetail tells when the streams came back after the agent went; all times are of the wall clock in milliseconds, so that
// whoever restarted the agent can subtract the moment.
type reconnectDetail struct {
	BrokenUnixMs float64 `json:"broken_unix_ms"` // the first stream ended
	FirstUnixMs  float64 `json:"first_unix_ms"`  // the first stream had an SVID again
	LastUnixMs   float64 `json:"last_unix_ms"`   // the last stream had one
	Attempts     int     `json:"attempts"`       // connections after the break
}

const retryInterval = 5 * time.Millisecond

// setupReconnect holds n streams, says {"event":"open"} and waits until each has broken and has an SVID again. A stream that broke
// connects again every five milliseconds: impatient, so that the agent and not the clients' back-off is measured.
func setupReconnect(flags *flag.FlagSet) func(context.Context, *options) (*report, error) {
	n := flags.Int("n", 500, "streams, each on a connection of its own")
	return func(ctx context.Context, o *options) (*report, error) {
		if err := between("n", *n, maxConnections); err != nil {
			return nil, err
		}
		l, err := newLoop(o.socket)
		if err != nil {
			return nil, err
		}
		defer l.end()
		r := &reconnecting{loop: l}
		for range *n {
			r.open(&rejoiner{})
		}
		opened, err := l.run(func() bool { return r.served == *n }, time.Now().Add(o.timeout))
		if err != nil || !opened {
			return nil, fmt.Errorf("%d of %d streams were opened within %s (%v): %v", r.served, *n, o.timeout, r.last, err)
		}
		fmt.Fprintln(os.Stdout, `{"event":"open"}`)
		r.waiting = true
		l.patient.Store(true)
		m := measure(o.pids)
		until := time.Now().Add(o.timeout)
		for r.back < *n && time.Now().Before(until) && ctx.Err() == nil {
			if err := l.step(time.Now().Add(retryInterval)); err != nil {
				return nil, err
			}
			r.retry()
		}
		for range *n - r.back {
			r.sum.fail("no_answer", fmt.Sprintf("no SVID again within %s (%v)", o.timeout, r.last))
		}
		result := m.report(&r.sum, o.settle)
		result.Detail = r.detail
		return result, nil
	}
}

// rejoiner is one stream over its connections.
type rejoiner struct {
	broken time.Time
	back   bool
}

type reconnecting struct {
	loop    *loop
	waiting bool // for the agent to go
	served  int
	back    int
	sum     tally
	detail  reconnectDetail
	again   []*rejoiner
	retried time.Time
	last    error
}

func unixMs(at time.Time) float64 { return float64(at.UnixNano()) / 1e6 }

func (r *reconnecting) open(s *rejoiner) {
	c := r.loop.dial()
	c.begin(&call{
		path: pathX509, request: framed(nil),
		onMessage: func(_ *call, at time.Time, message []byte) {
			if err := isX509(message); err != nil {
				r.last = err
				return
			}
			if s.broken.IsZero() {
				r.served++
				return
			}
			if s.back {
				return
			}
			s.back = true
			r.back++
			r.sum.add(at.Sub(s.broken), nil)
			if r.detail.FirstUnixMs == 0 {
				r.detail.FirstUnixMs = unixMs(at)
			}
			r.detail.LastUnixMs = unixMs(at)
		},
		onEnd: func(_ *call, at time.Time, err error) {
			r.last = err
			c.close()
			if !r.waiting {
				return
			}
			if s.broken.IsZero() {
				s.broken = at
				r.loop.patient.Store(false)
				if r.detail.BrokenUnixMs == 0 {
					r.detail.BrokenUnixMs = unixMs(at)
				}
			}
			r.again = append(r.again, s)
		},
	})
	c.flush()
}

func (r *reconnecting) retry() {
	if len(r.again) == 0 || time.Since(r.retried) < retryInterval {
		return
	}
	r.retried = time.Now()
	list := r.again
	r.again = nil
	for _, s := range list {
		r.detail.Attempts++
		r.open(s)
	}
}
