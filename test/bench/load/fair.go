package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// setupNoise is a user who takes what there is until the time is up: half of its connections come and go, the other half ask for
// new tokens, eight calls at once on each. What is refused is counted and asked for again a millisecond later.
func setupNoise(flags *flag.FlagSet) func(context.Context, *options) (*report, error) {
	n := flags.Int("n", 64, "connections")
	d := flags.Duration("d", 10*time.Second, "how long")
	return func(ctx context.Context, o *options) (*report, error) {
		if err := between("n", *n, maxConnections); err != nil {
			return nil, err
		}
		if err := during("d", *d); err != nil {
			return nil, err
		}
		half := (*n + 1) / 2
		ctx, stop := signal.NotifyContext(ctx, syscall.SIGUSR1)
		defer stop()
		m := measure(nil)
		fetched := make(chan *tally, 1)
		go func() {
			load := fetchLoad{workers: half, bounds: bounds{time: *d}, started: new(atomic.Int64), closing: true,
				check: func(_ int64, message []byte) error { return isX509(message) }}
			sum, err := load.drive(ctx, o)
			if err != nil {
				sum = &tally{}
				sum.fail("Unknown", err.Error())
			}
			fetched <- sum
		}()
		sum, err := tokenNoise(ctx, o, half, *d)
		all := <-fetched
		if err != nil {
			return nil, err
		}
		all.merge(sum)
		return m.report(all, 0), nil
	}
}

func tokenNoise(ctx context.Context, o *options, connections int, d time.Duration) (*tally, error) {
	l, err := newLoop(o.socket)
	if err != nil {
		return nil, err
	}
	defer l.end()
	conns := make([]*conn, connections)
	for i := range conns {
		conns[i] = l.dial()
	}
	load := rawJWT(true)(nil, nil)
	load.callers = 8 * connections
	return load.drive(ctx, o, l, conns, d)
}

// fairDetail is the victim without and with the noise, as `first` reports it, and what the noise did.
type fairDetail struct {
	Quiet *report `json:"quiet"`
	Noisy *report `json:"noisy"`
	Noise *report `json:"noise"`
}

// setupFair measures how much one user can slow down another: the victim's first X509-SVIDs, one after the other.
func setupFair(flags *flag.FlagSet) func(context.Context, *options) (*report, error) {
	noisy := flags.Int("noise", 0, "uid that makes the noise")
	victim := flags.Int("victim", 0, "uid that is measured")
	n := flags.Int("n", 200, "fetches of the victim in each part")
	connections := flags.Int("conns", 64, "connections of the noise")
	d := flags.Duration("d", 10*time.Second, "longest time of each part")
	return func(ctx context.Context, o *options) (*report, error) {
		for name, value := range map[string]int{"noise": *noisy, "victim": *victim, "n": *n, "conns": *connections} {
			if err := between(name, value, 1<<30); err != nil {
				return nil, err
			}
		}
		if err := during("d", *d); err != nil {
			return nil, err
		}
		if os.Getuid() != 0 {
			return nil, errors.New("callers under other users need root")
		}
		fetch := []string{"first", "-n", strconv.Itoa(*n), "-d", d.String()}
		quiet, err := runAs(ctx, o, *victim, fetch...)
		if err != nil {
			return nil, err
		}
		m := measure(o.pids)
		type ended struct {
			report *report
			err    error
		}
		noise := make(chan ended, 1)
		within, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			r, err := runAs(within, o, *noisy, "noise", "-n", strconv.Itoa(*connections), "-d", (*d + o.timeout + 5*time.Second).String())
			noise <- ended{r, err}
		}()
		pause(ctx, time.Second)
		loud, err := runAs(ctx, o, *victim, fetch...)
		cancel()
		made := <-noise
		if err != nil {
			return nil, err
		}
		if made.err != nil {
			return nil, fmt.Errorf("the noise: %w", made.err)
		}
		result := m.report(&tally{}, o.settle)
		result.Count, result.Latency, result.Errors, result.ErrorExample = loud.Count, loud.Latency, loud.Errors, loud.ErrorExample
		result.PerSecond = loud.PerSecond
		result.ClientCPU = loud.ClientCPU + made.report.ClientCPU
		result.Detail = fairDetail{quiet, loud, made.report}
		return result, nil
	}
}

// runAs runs a command of this program under another user; cancelling ends it early and still yields its report.
func runAs(ctx context.Context, o *options, uid int, args ...string) (*report, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	child := exec.Command(program, append(args, "-socket", o.socket, "-timeout", o.timeout.String())...)
	var output, errorText bytes.Buffer
	child.Stdout, child.Stderr, child.Dir = &output, &errorText, "/"
	child.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}, Pdeathsig: syscall.SIGKILL}
	if err := child.Start(); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = child.Process.Signal(syscall.SIGUSR1) })
	defer stop()
	if err := child.Wait(); err != nil {
		return nil, fmt.Errorf("load %s under uid %d: %w: %s", args[0], uid, err, errorText.String())
	}
	var r report
	if err := json.Unmarshal(output.Bytes(), &r); err != nil {
		return nil, err
	}
	r.Args = args
	return &r, nil
}
