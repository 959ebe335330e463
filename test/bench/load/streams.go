package main

import (
	"context"
	"flag"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
)

// streamSet holds n FetchX509SVID streams, each on a connection of its own.
type streamSet struct {
	cancel context.CancelFunc
	group  sync.WaitGroup
	all    chan struct{} // closed when each stream has its first message or has ended

	mu      sync.Mutex
	waiting int
	sum     tally // first messages, and streams that ended before one
	broken  tally // streams that ended later, while they should have been open
	closing bool
}

// onMessage is called for each message, from the stream's own goroutine; `at` is when it had been read.
type onMessage func(stream int, at time.Time, response *workload.X509SVIDResponse)

// openStreams dials n connections at one instant.
func openStreams(ctx context.Context, o *options, n int, receive onMessage) (*streamSet, error) {
	connections := make([]*connection, n)
	for i := range connections {
		var err error
		if connections[i], err = connect(o.socket); err != nil {
			closeAll(connections[:i])
			return nil, err
		}
	}
	ctx, cancel := context.WithCancel(withHeader(ctx))
	s := &streamSet{cancel: cancel, all: make(chan struct{}), waiting: n}
	gate := make(chan struct{})
	var start time.Time
	for i, c := range connections {
		s.group.Go(func() {
			defer c.Close()
			<-gate
			s.follow(ctx, c, i, start, receive)
		})
	}
	start = time.Now()
	close(gate)
	return s, nil
}

func (s *streamSet) follow(ctx context.Context, c *connection, i int, start time.Time, receive onMessage) {
	stream, err := c.FetchX509SVID(ctx, &workload.X509SVIDRequest{})
	var response *workload.X509SVIDResponse
	for first := true; ; first = false {
		if err == nil {
			response, err = stream.Recv()
		}
		at := time.Now()
		if err == nil {
			err = hasSVID(response)
		}
		s.note(first, at.Sub(start), err)
		if err != nil {
			return
		}
		if receive != nil {
			receive(i, at, response)
		}
	}
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
	s.cancel()
	s.group.Wait()
}

func setupStorm(flags *flag.FlagSet) func(context.Context, *options) (*report, error) {
	n := flags.Int("n", 100, "connections at one instant")
	return func(ctx context.Context, o *options) (*report, error) {
		if err := between("n", *n, maxConnections); err != nil {
			return nil, err
		}
		m := measure(o.pids)
		set, err := openStreams(ctx, o, *n, nil)
		if err != nil {
			return nil, err
		}
		result := m.report(set.waitFirst(ctx, o.timeout), 0)
		set.close()
		return result, nil
	}
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

func usagesOf(pids []int) []usage {
	all := make([]usage, len(pids))
	for i, pid := range pids {
		all[i] = usageOf(pid)
	}
	return all
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

// cpuDuring waits and returns the CPU seconds that each process spent meanwhile.
func cpuDuring(ctx context.Context, pids []int, d time.Duration) []float64 {
	spent := make([]float64, len(pids))
	for i, pid := range pids {
		spent[i] = -cpuSeconds(pid)
	}
	pause(ctx, d)
	for i, pid := range pids {
		spent[i] += cpuSeconds(pid)
	}
	return spent
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
