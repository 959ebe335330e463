package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"
)

// awaitDetail tells when the first X509-SVID came, so that whoever started the agent can subtract the moment of the start.
type awaitDetail struct {
	AtUnixMs float64 `json:"at_unix_ms"`
	Attempts int     `json:"attempts"` // connections until an answer came
}

func setupAwait(flags *flag.FlagSet) func(context.Context, *options) (*report, error) {
	patience := flags.Duration("for", 30*time.Second, "longest wait in all")
	return func(ctx context.Context, o *options) (*report, error) {
		if err := during("for", *patience); err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, *patience)
		defer cancel()
		m := measure(o.pids)
		var sum tally
		last := fmt.Errorf("there is no %s", o.socket)
		for attempts := 0; ctx.Err() == nil; time.Sleep(time.Millisecond) {
			if _, err := os.Stat(o.socket); err != nil {
				continue
			}
			attempts++
			message, err := fetchRaw(o)
			if err != nil {
				last = err
				continue
			}
			at := time.Now()
			response, err := decodeX509(message)
			if err == nil {
				_, err = checkSVID(response, at)
			}
			if err != nil {
				return nil, err
			}
			sum.add(at.Sub(m.start), nil)
			result := m.report(&sum, 0)
			result.Detail = awaitDetail{float64(at.UnixNano()) / 1e6, attempts}
			return result, nil
		}
		return nil, fmt.Errorf("no X509-SVID within %s: %w", *patience, last)
	}
}

// fetchRaw takes the first X509-SVID response on a connection of its own.
func fetchRaw(o *options) ([]byte, error) {
	l, err := newLoop(o.socket)
	if err != nil {
		return nil, err
	}
	defer l.end()
	return l.once(l.dial(), pathX509, framed(nil), o.timeout)
}
