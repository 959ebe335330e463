package main

import (
	"context"
	"flag"
	"runtime"
	"sync"
	"time"
)

// onStream is called for each message, from the loop's thread; the message is only valid during the call.
type onStream func(stream int, at time.Time, message []byte)

// streamSet holds n FetchX509SVID streams, each on a connection of its own.
type streamSet struct {
	loop    *loop
	start   time.Time
	receive onStream
	all     chan struct{} // closed when each stream has its first message or has ended
	stop    chan struct{}
	stopped chan error

	mu      sync.Mutex
	waiting int
	sum     tally // first messages, and streams that ended before one
	broken  tally // streams that ended later, while they should have been open
	closing bool
}

// openStreams connects n times at one instant.
func openStreams(ctx context.Context, o *options, n int, receive onStream) (*streamSet, error) {
	l, err := newLoop(o.socket)
	if err != nil {
		return nil, err
	}
	s := &streamSet{loop: l, receive: receive, waiting: n,
		all: make(chan struct{}), stop: make(chan struct{}), stopped: make(chan error, 1)}
	conns := make([]*conn, n)
	for i := range conns {
		conns[i] = l.dial()
		s.follow(conns[i], i)
	}
	s.start = time.Now()
	go s.run(ctx, conns)
	return s, nil
}

func (s *streamSet) run(ctx context.Context, conns []*conn) {
	runtime.LockOSThread()
	for _, c := range conns {
		c.flush()
	}
	for {
		select {
		case <-ctx.Done():
			s.stopped <- ctx.Err()
			return
		case <-s.stop:
			s.stopped <- nil
			return
		default:
		}
		if err := s.loop.step(time.Now().Add(50 * time.Millisecond)); err != nil {
			s.stopped <- err
			return
		}
	}
}

func (s *streamSet) follow(c *conn, i int) {
	first := true
	c.begin(&call{
		path: pathX509, request: framed(nil),
		onMessage: func(_ *call, at time.Time, message []byte) {
			s.note(first, at.Sub(s.start), isX509(message))
			first = false
			if s.receive != nil {
				s.receive(i, at, message)
			}
		},
		onEnd: func(_ *call, at time.Time, err error) {
			if err == nil {
				err = wrongAnswer("the stream ended with OK")
			}
			s.note(first, at.Sub(s.start), err)
			first = false
		},
	})
}

func (s *streamSet) note(first bool, took time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closing:
	case first:
		s.sum.add(took, err)
		if s.waiting--; s.waiting == 0 {
			close(s.all)
		}
	case err != nil:
		s.broken.add(0, err)
	}
}

// waitFirst returns how long it took until each stream had its first message. Streams without one when the time is up count
// as errors.
func (s *streamSet) waitFirst(ctx context.Context, patience time.Duration) *tally {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-s.all:
	case <-timer.C:
	case <-ctx.Done():
	}
	s.loop.patient.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	var sum tally
	sum.merge(&s.sum)
	for range s.waiting {
		sum.fail("no_answer", "no message within "+patience.String())
	}
	return &sum
}

// brokenStreams counts, by status code, the streams that ended after their first message.
func (s *streamSet) brokenStreams() (int, map[string]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	total, codes := 0, map[string]int{}
	for code, count := range s.broken.errors {
		codes[code] = count
		total += count
	}
	return total, codes
}

func (s *streamSet) close() {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	close(s.stop)
	<-s.stopped
	s.loop.end()
}

// streamsDetail is the cost of open streams, one snapshot for each process of -pid.
type streamsDetail struct {
	AllAfterMs  float64        `json:"all_after_ms"` // from the first connect to the last first message
	Open        []usage        `json:"open"`         // one second after the last first message
	PerStream   *perStream     `json:"per_stream,omitempty"`
	HoldSeconds float64        `json:"hold_s"`
	HoldCPU     []float64      `json:"hold_cpu_s"`
	Held        []usage        `json:"held"`   // at the end of the hold
	Closed      []usage        `json:"closed"` // three seconds after the last close
	Broken      map[string]int `json:"broken"`
}

// perStream is what the first process has more than before, in KiB for each stream; left out where it could not be read.
type perStream struct {
	RSS       float64 `json:"rss_kib"`
	PSS       float64 `json:"pss_kib"`
	Anonymous float64 `json:"anonymous_kib"`
	FDs       float64 `json:"fds"`
}

func setupStreams(flags *flag.FlagSet) func(context.Context, *options) (*report, error) {
	n := flags.Int("n", 100, "streams, each on a connection of its own")
	hold := flags.Duration("hold", 10*time.Second, "how long to hold them without doing anything")
	return func(ctx context.Context, o *options) (*report, error) {
		if err := between("n", *n, maxConnections); err != nil {
			return nil, err
		}
		if err := during("hold", *hold); err != nil {
			return nil, err
		}
		m := measure(o.pids)
		set, err := openStreams(ctx, o, *n, nil)
		if err != nil {
			return nil, err
		}
		first := set.waitFirst(ctx, o.timeout)
		result := m.report(first, time.Second)
		detail := streamsDetail{HoldSeconds: hold.Seconds()}
		if result.Latency != nil {
			detail.AllAfterMs = result.Latency.Max
		}
		detail.Open = usagesOf(o.pids)
		if len(o.pids) > 0 {
			detail.PerStream = difference(result.Processes[0].Before, detail.Open[0], *n)
		}
		detail.HoldCPU = cpuDuring(ctx, o.pids, *hold)
		detail.Held = usagesOf(o.pids)
		_, detail.Broken = set.brokenStreams()
		set.close()
		pause(ctx, 3*time.Second)
		detail.Closed = usagesOf(o.pids)
		result.Detail = detail
		return result, nil
	}
}

func difference(before, after usage, n int) *perStream {
	if before.Error != "" || after.Error != "" {
		return nil
	}
	each := func(b, a int) float64 { return float64(a-b) / float64(n) }
	return &perStream{
		RSS:       each(before.RSS, after.RSS),
		PSS:       each(before.PSS, after.PSS),
		Anonymous: each(before.Anonymous, after.Anonymous),
		FDs:       each(before.FDs, after.FDs),
	}
}
