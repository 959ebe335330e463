package main

import (
	"errors"
	"math"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/status"
)

// report is what every command prints.
type report struct {
	Command   string   `json:"command"`
	Args      []string `json:"args"`
	Count     int      `json:"count"` // operations that succeeded
	Seconds   float64  `json:"seconds"`
	PerSecond float64  `json:"per_second"`
	Latency   *latency `json:"latency_ms,omitempty"`
	// Operations that failed, by gRPC status code; wrong_answer: the call succeeded and its content was not right.
	Errors       map[string]int  `json:"errors"`
	ErrorExample string          `json:"error_example,omitempty"`
	ClientCPU    float64         `json:"client_cpu_s"`
	Processes    []processReport `json:"processes,omitempty"` // in the order of -pid
	// Each operation in microseconds, in the order of their ends; only where there are few.
	DurationsUs []int64 `json:"durations_us,omitempty"`
	Detail      any     `json:"detail,omitempty"`
}

// latency in milliseconds; percentiles by nearest rank.
type latency struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// processReport tells what one process under test spent between the beginning and the end of the load.
type processReport struct {
	PID    int     `json:"pid"`
	CPU    float64 `json:"cpu_s"`
	Before usage   `json:"before"`
	Peak   peak    `json:"peak"`
	After  usage   `json:"after"`
}

// tally counts the operations of one worker.
type tally struct {
	durations []time.Duration
	errors    map[string]int
	example   string
}

func (t *tally) add(took time.Duration, err error) {
	if err == nil {
		t.durations = append(t.durations, took)
		return
	}
	t.fail(codeOf(err), err.Error())
}

func (t *tally) fail(code, example string) {
	if t.errors == nil {
		t.errors = map[string]int{}
	}
	t.errors[code]++
	if t.example == "" {
		t.example = example
	}
}

// merge adds another tally's counts.
func (t *tally) merge(other *tally) {
	t.durations = append(t.durations, other.durations...)
	for code, count := range other.errors {
		if t.errors == nil {
			t.errors = map[string]int{}
		}
		t.errors[code] += count
	}
	if t.example == "" {
		t.example = other.example
	}
}

// wrongAnswer is a call that succeeded with the wrong content.
type wrongAnswer string

func (w wrongAnswer) Error() string { return string(w) }

func codeOf(err error) string {
	var wrong wrongAnswer
	var failed *failure
	switch {
	case errors.As(err, &wrong):
		return "wrong_answer"
	case errors.As(err, &failed):
		return failed.code
	}
	return status.Code(err).String()
}

// measurement spans the load: what came before it and what the processes had spent by then.
type measurement struct {
	pids      []int
	before    []usage
	cpu       []float64
	clientCPU float64
	peaks     func() []peak
	start     time.Time
}

// measure takes the snapshots; its clock starts last.
func measure(pids []int) *measurement {
	m := &measurement{pids: pids}
	for _, pid := range pids {
		m.before = append(m.before, usageOf(pid))
	}
	for _, pid := range pids {
		m.cpu = append(m.cpu, cpuSeconds(pid))
	}
	m.peaks = watchPeaks(pids)
	m.clientCPU = ownCPU()
	m.start = time.Now()
	return m
}

// report ends the measurement. The processes' memory is read after `settle`, when closed connections have been cleared away; the
// peak counts until then, because the clearing takes memory too.
func (m *measurement) report(t *tally, settle time.Duration) *report {
	elapsed := time.Since(m.start).Seconds()
	r := &report{Count: len(t.durations), Seconds: elapsed, ClientCPU: ownCPU() - m.clientCPU}
	r.Errors, r.ErrorExample = t.errors, t.example
	if r.Errors == nil {
		r.Errors = map[string]int{}
	}
	r.PerSecond = float64(r.Count) / elapsed
	r.Latency = percentiles(t.durations)
	for i, pid := range m.pids {
		r.Processes = append(r.Processes, processReport{PID: pid, CPU: cpuSeconds(pid) - m.cpu[i], Before: m.before[i]})
	}
	time.Sleep(settle)
	for i, p := range m.peaks() {
		r.Processes[i].Peak = p
	}
	for i, pid := range m.pids {
		r.Processes[i].After = usageOf(pid)
	}
	return r
}

// withDurations adds the operations one by one where there are at most a thousand.
func (r *report) withDurations(t *tally) *report {
	if len(t.durations) <= 1000 {
		for _, d := range t.durations {
			r.DurationsUs = append(r.DurationsUs, d.Microseconds())
		}
	}
	return r
}

func percentiles(durations []time.Duration) *latency {
	if len(durations) == 0 {
		return nil
	}
	sorted := slices.Clone(durations)
	slices.Sort(sorted)
	rank := func(share float64) float64 {
		i := int(math.Ceil(share*float64(len(sorted)))) - 1
		return float64(sorted[max(i, 0)].Nanoseconds()) / 1e6
	}
	return &latency{P50: rank(0.5), P90: rank(0.9), P99: rank(0.99), Max: rank(1)}
}

// ownCPU is the driver's user and system time in seconds.
func ownCPU() float64 {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return float64(r.Utime.Nano()+r.Stime.Nano()) / 1e9
}

func medianOf[T any](list []T, pick func(T) float64) float64 {
	values := make([]float64, len(list))
	for i, item := range list {
		values[i] = pick(item)
	}
	slices.Sort(values)
	return values[len(values)/2]
}
