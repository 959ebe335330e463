package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// usage is one look at a process. Memory in KiB as in /proc/PID/smaps_rollup: all resident, the proportional share of what
// several processes map, and what no file backs.
type usage struct {
	RSS       int    `json:"rss_kib"`
	PSS       int    `json:"pss_kib"`
	Anonymous int    `json:"anonymous_kib"`
	FDs       int    `json:"fds"`
	Error     string `json:"error,omitempty"` // why the figures are missing
}

func usageOf(pid int) usage {
	var u usage
	if err := u.readMemory(pid); err != nil {
		u.Error = err.Error()
	}
	descriptors, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		u.Error = err.Error()
	}
	u.FDs = len(descriptors)
	return u
}

func (u *usage) readMemory(pid int) error {
	file, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return err
	}
	defer file.Close()
	fields := map[string]*int{"Rss:": &u.RSS, "Pss:": &u.PSS, "Anonymous:": &u.Anonymous}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		parts := strings.Fields(lines.Text())
		if len(parts) < 2 || fields[parts[0]] == nil {
			continue
		}
		if *fields[parts[0]], err = strconv.Atoi(parts[1]); err != nil {
			return err
		}
	}
	return lines.Err()
}

// cpuSeconds is what the process has spent, ended threads included, from its CPU-time clock: /proc/PID/stat counts in steps of
// 10 ms, too coarse for short loads. A process that is gone counts as 0.
func cpuSeconds(pid int) float64 {
	// clock_getcpuclockid(3): the clock of a whole process is ~pid shifted by 3, with CPUCLOCK_SCHED (2) below.
	clock := int32(^pid<<3 | 2)
	var t unix.Timespec
	if err := unix.ClockGettime(clock, &t); err != nil {
		return 0
	}
	return float64(t.Nano()) / 1e9
}

func usagesOf(pids []int) []usage {
	all := make([]usage, len(pids))
	for i, pid := range pids {
		all[i] = usageOf(pid)
	}
	return all
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
