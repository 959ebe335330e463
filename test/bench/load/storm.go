package main

import (
	"context"
	"flag"
)

func setupStorm(flags *flag.FlagSet) func(context.Context, *options) (*report, error) {
	n := flags.Int("n", 100, "connections at one instant")
	own := flags.Int("own", 0, "each caller a process under its own user, from this uid on; 0: all in one process")
	identity := flags.String("identity", "", "with -own: the SPIFFE ID that each must get, UID standing for its user")
	return func(ctx context.Context, o *options) (*report, error) {
		if err := between("n", *n, maxConnections); err != nil {
			return nil, err
		}
		if *own != 0 {
			if err := between("own", *own, 1<<30); err != nil {
				return nil, err
			}
			return stormOfProcesses(ctx, o, *n, *own, *identity)
		}
		m := measure(o.pids)
		sum, err := storm(ctx, o, *n)
		if err != nil {
			return nil, err
		}
		return m.report(sum, o.settle).withDurations(sum), nil
	}
}

func storm(ctx context.Context, o *options, n int) (*tally, error) {
	set, err := openStreams(ctx, o, n, nil)
	if err != nil {
		return nil, err
	}
	defer set.close()
	return set.waitFirst(ctx, o.timeout), nil
}

// stormsDetail: one figure for each storm, in its order.
type stormsDetail struct {
	LastMs []float64 `json:"last_ms"` // until the last of the callers had its SVID
	Served []int     `json:"served"`
	// The first storm, from 1, in which a caller got nothing; 0: none. No storm follows it.
	LostIn int `json:"lost_in"`
}

// setupStorms is one storm after the other on one agent: some agents hang only after many.
func setupStorms(flags *flag.FlagSet) func(context.Context, *options) (*report, error) {
	n := flags.Int("n", 500, "connections at one instant")
	times := flags.Int("times", 200, "storms, one after the other")
	return func(ctx context.Context, o *options) (*report, error) {
		if err := between("n", *n, maxConnections); err != nil {
			return nil, err
		}
		if err := between("times", *times, 10_000); err != nil {
			return nil, err
		}
		var all tally
		var detail stormsDetail
		m := measure(o.pids)
		for i := 1; i <= *times && ctx.Err() == nil && detail.LostIn == 0; i++ {
			sum, err := storm(ctx, o, *n)
			if err != nil {
				return nil, err
			}
			detail.Served = append(detail.Served, len(sum.durations))
			if len(sum.durations) < *n {
				detail.LostIn = i
			}
			if l := percentiles(sum.durations); l != nil {
				detail.LastMs = append(detail.LastMs, l.Max)
			}
			all.merge(sum)
		}
		result := m.report(&all, o.settle)
		result.Detail = detail
		return result, nil
	}
}
