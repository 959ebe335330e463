package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// peak is the most memory that a process had during a load, in KiB.
type peak struct {
	RSS       int `json:"rss_kib"`       // VmHWM, which the kernel keeps; set back before the load
	Anonymous int `json:"anonymous_kib"` // RssAnon, looked at every 20 ms
}

const peakInterval = 20 * time.Millisecond

// watchPeaks follows processes until the function that it returns is called. /proc/PID/status is a few counters: smaps_rollup
// would walk the page tables under the lock that the agent's allocations need.
func watchPeaks(pids []int) func() []peak {
	peaks := make([]peak, len(pids))
	for i, pid := range pids {
		// 5: the peak is from now on. Without the right to do so the figure stays 0.
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
			peaks[i].RSS = -1
		}
	}
	look := func() {
		for i, pid := range pids {
			high, anonymous := statusOfProcess(pid)
			peaks[i].Anonymous = max(peaks[i].Anonymous, anonymous)
			if peaks[i].RSS >= 0 {
				peaks[i].RSS = max(peaks[i].RSS, high)
			}
		}
	}
	if len(pids) == 0 {
		return func() []peak { return nil }
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(peakInterval)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				look()
				return
			case <-tick.C:
				look()
			}
		}
	}()
	return func() []peak {
		close(stop)
		<-stopped
		for i := range peaks {
			peaks[i].RSS = max(peaks[i].RSS, 0)
		}
		return peaks
	}
}

func statusOfProcess(pid int) (high, anonymous int) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		parts := strings.Fields(lines.Text())
		if len(parts) < 2 {
			continue
		}
		switch parts[0] {
		case "VmHWM:":
			high, _ = strconv.Atoi(parts[1])
		case "RssAnon:":
			anonymous, _ = strconv.Atoi(parts[1])
		}
	}
	return high, anonymous
}
