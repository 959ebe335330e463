package main

import (
	"context"
	"flag"
	"sync"
	"sync/atomic"
	"time"
)

// churnSample is a look at the agent in the middle of the churn: a leak is a line that rises.
type churnSample struct {
	Rounds int `json:"rounds"`
	usage
}

type churnDetail struct {
	Samples []churnSample `json:"samples"`
}

const churnSamples = 10

func setupChurn(flags *flag.FlagSet) func(context.Context, *options) (*report, error) {
	workers := flags.Int("c", 4, "connections at once")
	duration := flags.Duration("d", 0, "how long; or:")
	rounds := flags.Int("n", 0, "how many rounds in all")
	return func(ctx context.Context, o *options) (*report, error) {
		if err := between("c", *workers, maxConnections); err != nil {
			return nil, err
		}
		if (*duration == 0) == (*rounds == 0) {
			return nil, usageError{"exactly one of -d and -n is required"}
		}
		if *rounds < 0 || *rounds > maxOperations || *duration < 0 || *duration > maxDuration {
			return nil, usageError{"-n or -d out of bounds"}
		}
		var started atomic.Int64
		m := measure(o.pids)
		sampler := startSampler(o, bounds{count: *rounds, time: *duration}, &started)
		b := bounds{count: *rounds, time: *duration}
		if o.via == viaRaw {
			load := fetchLoad{workers: *workers, bounds: b, started: &started, closing: true,
				check: func(_ int64, message []byte) error { return isX509(message) }}
			sum, err := load.drive(ctx, o)
			samples := sampler()
			if err != nil {
				return nil, err
			}
			result := m.report(sum, o.settle)
			result.Detail = churnDetail{samples}
			return result, nil
		}
		sum := hammer(ctx, o, *workers, b, &started, func(ctx context.Context, _ int) (time.Duration, error) {
			start := time.Now()
			c, response, err := fetchOnce(ctx, o.socket)
			if err != nil {
				return 0, err
			}
			err = c.Close()
			took := time.Since(start)
			if err == nil {
				err = hasSVID(response)
			}
			return took, err
		})
		samples := sampler()
		result := m.report(sum, o.settle)
		result.Detail = churnDetail{samples}
		return result, nil
	}
}

// startSampler looks at the first process after each tenth of the churn. The function that it returns ends it.
func startSampler(o *options, b bounds, started *atomic.Int64) func() []churnSample {
	if len(o.pids) == 0 {
		return func() []churnSample { return nil }
	}
	var samples []churnSample
	stop := make(chan struct{})
	var group sync.WaitGroup
	begin := time.Now()
	group.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			done := int(started.Load())
			share := float64(time.Since(begin)) / float64(max(b.time, 1))
			if b.count > 0 {
				share = float64(done) / float64(b.count)
			}
			if int(share*churnSamples) > len(samples) && len(samples) < churnSamples {
				samples = append(samples, churnSample{done, usageOf(o.pids[0])})
			}
		}
	})
	return func() []churnSample {
		close(stop)
		group.Wait()
		return samples
	}
}
