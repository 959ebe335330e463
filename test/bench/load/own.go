package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// monotonicNs is one clock for all processes of the machine.
func monotonicNs() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0
	}
	return t.Nano()
}

// oneResult is what one caller in a process of its own prints.
type oneResult struct {
	Ready   bool   `json:"ready,omitempty"`
	UID     int    `json:"uid"`
	StartNs int64  `json:"start_ns,omitempty"` // before its connect
	EndNs   int64  `json:"end_ns,omitempty"`   // it has its SVID
	CPUNs   int64  `json:"cpu_ns,omitempty"`   // spent on it
	ID      string `json:"id,omitempty"`
	Code    string `json:"code,omitempty"`
	Error   string `json:"error,omitempty"`
}

// setupOne is a caller of `storm -own`: it waits until descriptor 3 closes, fetches one X509-SVID and keeps it until standard
// input closes. It prints its own lines; the report is not for anybody.
func setupOne(*flag.FlagSet) func(context.Context, *options) (*report, error) {
	return func(_ context.Context, o *options) (*report, error) {
		say := func(r oneResult) {
			r.UID = os.Getuid()
			// A line of less than 4,096 bytes reaches the pipe whole (PIPE_BUF).
			line, _ := json.Marshal(r)
			_, _ = os.Stdout.Write(append(line, '\n'))
		}
		l, err := newLoop(o.socket)
		if err != nil {
			return nil, err
		}
		l.patient.Store(true)
		say(oneResult{Ready: true})
		gate := os.NewFile(3, "gate")
		if _, err := io.Copy(io.Discard, gate); err != nil {
			return nil, err
		}
		cpu := ownCPU()
		start := monotonicNs()
		message, err := l.once(l.dial(), pathX509, framed(nil), o.timeout)
		r := oneResult{StartNs: start, EndNs: monotonicNs(), CPUNs: int64((ownCPU() - cpu) * 1e9)}
		if err == nil {
			err = isX509(message)
		}
		if err != nil {
			r.Code, r.Error = codeOf(err), err.Error()
		} else {
			r.ID = string(fieldOf(fieldOf(message, 1), 1))
		}
		say(r)
		_, err = io.Copy(io.Discard, os.Stdin)
		l.end()
		os.Exit(0)
		return nil, err
	}
}

// family is a set of processes of this program, each under a user of its own.
type family struct {
	children []*exec.Cmd
	lines    *bufio.Scanner
	gate     *os.File
	hold     *os.File
	closers  []*os.File
}

// spawnFamily starts n processes under the users first, first+1 and so on. They end when hold closes.
func spawnFamily(o *options, n, first int) (*family, error) {
	f := &family{}
	pipe := func() (read, write *os.File, err error) {
		read, write, err = os.Pipe()
		if err == nil {
			f.closers = append(f.closers, read, write)
		}
		return read, write, err
	}
	output, outputEnd, err := pipe()
	if err != nil {
		return nil, err
	}
	gate, gateEnd, err := pipe()
	if err != nil {
		return nil, err
	}
	hold, holdEnd, err := pipe()
	if err != nil {
		return nil, err
	}
	f.lines, f.gate, f.hold = bufio.NewScanner(output), gateEnd, holdEnd
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	for i := range n {
		child := exec.Command(program, "one", "-socket", o.socket, "-timeout", o.timeout.String())
		child.Env = []string{"GOMAXPROCS=1", "GOGC=off"}
		child.Dir = "/"
		child.Stdin, child.Stdout, child.Stderr, child.ExtraFiles = hold, outputEnd, os.Stderr, []*os.File{gate}
		child.SysProcAttr = &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: uint32(first + i), Gid: uint32(first + i)}, Pdeathsig: syscall.SIGKILL}
		if err := child.Start(); err != nil {
			f.end()
			return nil, fmt.Errorf("a process under uid %d: %w", first+i, err)
		}
		f.children = append(f.children, child)
	}
	// So that the end of the last child ends the reading.
	outputEnd.Close()
	return f, nil
}

// read takes n lines, one of each process.
func (f *family) read(n int) ([]oneResult, error) {
	list := make([]oneResult, 0, n)
	for len(list) < n {
		if !f.lines.Scan() {
			return list, errors.New("a process of the storm ended early")
		}
		var r oneResult
		if err := json.Unmarshal(f.lines.Bytes(), &r); err != nil {
			return list, err
		}
		list = append(list, r)
	}
	return list, nil
}

func (f *family) end() {
	for _, file := range f.closers {
		file.Close()
	}
	for _, child := range f.children {
		_ = child.Wait()
	}
}

// ownDetail: latency_ms counts from the instant at which all were let go; this from each process's own connect.
type ownDetail struct {
	Own   *latency `json:"own_ms"`
	Users int      `json:"users"`
}

// stormOfProcesses lets n processes connect at one instant, each under its own user, and checks that each got its own identity.
func stormOfProcesses(ctx context.Context, o *options, n, first int, identity string) (*report, error) {
	if os.Getuid() != 0 {
		return nil, errors.New("processes under users of their own need root")
	}
	f, err := spawnFamily(o, n, first)
	if err != nil {
		return nil, err
	}
	defer f.end()
	stop := context.AfterFunc(ctx, func() { f.hold.Close(); f.gate.Close() })
	defer stop()
	if _, err := f.read(n); err != nil {
		return nil, err
	}
	// All have said so, but not all sleep yet.
	pause(ctx, 200*time.Millisecond)
	m := measure(o.pids)
	let := monotonicNs()
	f.gate.Close()
	results, err := f.read(n)
	if err != nil {
		return nil, err
	}
	var sum, own tally
	var last, cpu int64
	for _, r := range results {
		cpu += r.CPUNs
		last = max(last, r.EndNs)
		switch want := strings.ReplaceAll(identity, "UID", fmt.Sprint(r.UID)); {
		case r.Error != "":
			sum.fail(r.Code, r.Error)
		case r.ID != want:
			sum.fail("wrong_answer", fmt.Sprintf("uid %d got %q instead of %q", r.UID, r.ID, want))
		default:
			sum.add(time.Duration(r.EndNs-let), nil)
			own.add(time.Duration(r.EndNs-r.StartNs), nil)
		}
	}
	result := m.report(&sum, o.settle).withDurations(&sum)
	result.Seconds = float64(last-let) / 1e9
	result.PerSecond = float64(result.Count) / result.Seconds
	result.ClientCPU += float64(cpu) / 1e9
	result.Detail = ownDetail{percentiles(own.durations), n}
	return result, nil
}
