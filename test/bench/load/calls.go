package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
)

// bounds ends a load: after a count of operations or a duration, whichever comes first; 0 means without that bound.
type bounds struct {
	count int
	time  time.Duration
}

// operation is one unit of work and says itself how long its timed part took.
type operation func(ctx context.Context, worker int) (time.Duration, error)

// hammer repeats operation in `workers` goroutines and returns when the last has ended. Operations under way when the time is
// up are completed and counted.
func hammer(ctx context.Context, o *options, workers int, b bounds, started *atomic.Int64, run operation) *tally {
	if b.count == 0 || b.count > maxOperations {
		b.count = maxOperations
	}
	end := time.Now().Add(b.time)
	tallies := make([]tally, workers)
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			for ctx.Err() == nil && (b.time == 0 || time.Now().Before(end)) && started.Add(1) <= int64(b.count) {
				call, cancel := context.WithTimeout(ctx, o.timeout)
				took, err := run(call, worker)
				cancel()
				tallies[worker].add(took, err)
				if err != nil {
					// A refusal may come in microseconds: without a pause the load would be one of refusals.
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	group.Wait()
	var sum tally
	for i := range tallies {
		sum.merge(&tallies[i])
	}
	return &sum
}

func setupFirst(flags *flag.FlagSet) func(context.Context, *options) (*report, error) {
	n := flags.Int("n", 200, "connections, one after the other")
	d := flags.Duration("d", maxDuration, "how long at most")
	return func(ctx context.Context, o *options) (*report, error) {
		if err := between("n", *n, maxOperations); err != nil {
			return nil, err
		}
		if err := during("d", *d); err != nil {
			return nil, err
		}
		b := bounds{count: *n, time: *d}
		if o.via == viaRaw {
			m := measure(o.pids)
			load := fetchLoad{workers: 1, bounds: b, started: new(atomic.Int64), check: sometimesWhole}
			sum, err := load.drive(ctx, o)
			if err != nil {
				return nil, err
			}
			return m.report(sum, o.settle).withDurations(sum), nil
		}
		m := measure(o.pids)
		sum := hammer(ctx, o, 1, b, new(atomic.Int64), func(ctx context.Context, _ int) (time.Duration, error) {
			start := time.Now()
			c, response, err := fetchOnce(ctx, o.socket)
			if err != nil {
				return 0, err
			}
			took := time.Since(start)
			c.Close()
			_, err = checkSVID(response, time.Now())
			return took, err
		})
		return m.report(sum, o.settle).withDurations(sum), nil
	}
}

// concurrency is what jwt and validate share: C callers over K connections for a time.
type concurrency struct {
	callers, connections *int
	duration             *time.Duration
}

func concurrencyFlags(flags *flag.FlagSet) concurrency {
	return concurrency{
		flags.Int("c", 8, "callers at once"),
		flags.Int("conns", 1, "connections that the callers share"),
		flags.Duration("d", 10*time.Second, "how long"),
	}
}

func (c concurrency) check() error {
	if err := between("c", *c.callers, maxConnections); err != nil {
		return err
	}
	if err := between("conns", *c.connections, *c.callers); err != nil {
		return err
	}
	return during("d", *c.duration)
}

func setupJWT(flags *flag.FlagSet) func(context.Context, *options) (*report, error) {
	shape := concurrencyFlags(flags)
	distinct := flags.Bool("distinct", false, "a new audience for each call, so that each token is minted")
	return func(ctx context.Context, o *options) (*report, error) {
		if err := shape.check(); err != nil {
			return nil, err
		}
		if o.via == viaRaw {
			return rawUnary(ctx, o, shape, rawJWT(*distinct))
		}
		connections, err := connectAll(ctx, o, *shape.connections, func(ctx context.Context, c *connection) error {
			_, err := fetchJWT(ctx, c, "bench")
			return err
		})
		defer closeAll(connections)
		if err != nil {
			return nil, err
		}
		run := fmt.Sprintf("bench-%d-%d-", os.Getpid(), time.Now().UnixNano())
		var calls atomic.Int64
		b := bounds{time: *shape.duration}
		m := measure(o.pids)
		sum := hammer(ctx, o, *shape.callers, b, new(atomic.Int64), func(ctx context.Context, worker int) (time.Duration, error) {
			audience, call := "bench", calls.Add(1)
			if *distinct {
				audience = fmt.Sprint(run, call)
			}
			start := time.Now()
			svid, err := fetchJWT(ctx, connections[worker%len(connections)], audience)
			took := time.Since(start)
			// One in 64 is looked into: enough to find an agent that mixes tokens up, too few to cost the driver much.
			if err == nil && call%64 == 0 {
				err = checkAudience(svid.Svid, audience)
			}
			return took, err
		})
		return m.report(sum, o.settle), nil
	}
}

func fetchJWT(ctx context.Context, c *connection, audience string) (*workload.JWTSVID, error) {
	response, err := c.FetchJWTSVID(withHeader(ctx), &workload.JWTSVIDRequest{Audience: []string{audience}})
	if err != nil {
		return nil, err
	}
	if len(response.Svids) == 0 || response.Svids[0].Svid == "" {
		return nil, wrongAnswer("a response without JWT-SVID")
	}
	return response.Svids[0], nil
}

func setupValidate(flags *flag.FlagSet) func(context.Context, *options) (*report, error) {
	shape := concurrencyFlags(flags)
	return func(ctx context.Context, o *options) (*report, error) {
		if err := shape.check(); err != nil {
			return nil, err
		}
		if o.via == viaRaw {
			return rawUnary(ctx, o, shape, rawValidate)
		}
		var svid *workload.JWTSVID
		connections, err := connectAll(ctx, o, *shape.connections, func(ctx context.Context, c *connection) (err error) {
			svid, err = fetchJWT(ctx, c, "bench")
			return err
		})
		defer closeAll(connections)
		if err != nil {
			return nil, err
		}
		request := &workload.ValidateJWTSVIDRequest{Audience: "bench", Svid: svid.Svid}
		b := bounds{time: *shape.duration}
		m := measure(o.pids)
		sum := hammer(ctx, o, *shape.callers, b, new(atomic.Int64), func(ctx context.Context, worker int) (time.Duration, error) {
			start := time.Now()
			response, err := connections[worker%len(connections)].ValidateJWTSVID(withHeader(ctx), request)
			took := time.Since(start)
			if err == nil && response.SpiffeId != svid.SpiffeId {
				err = wrongAnswer(fmt.Sprintf("validated as %q instead of %q", response.SpiffeId, svid.SpiffeId))
			}
			return took, err
		})
		return m.report(sum, o.settle), nil
	}
}
