package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"golang.org/x/sys/unix"
)

// first makes one attempt, as early as a program can; go-spiffe repeats nothing in it.
func first(ctx context.Context, _ []string) error {
	age := ageOfProcess()
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	svids, err := workloadapi.FetchX509SVIDs(call)
	took := time.Since(began)
	line := object{"event": "first", "began": milliseconds(began), "fromFirstInstructionMs": ms(took)}
	if age >= 0 {
		line["fromProcessStartMs"] = ms(age + took)
	}
	if err != nil {
		line["error"] = err.Error()
	} else {
		line["svids"] = describe(svids)
	}
	print(line)
	return stay(ctx, nil)
}

func once(ctx context.Context, _ []string) error {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	start := time.Now()
	svids, err := workloadapi.FetchX509SVIDs(call)
	if err != nil {
		print(object{"event": "refused", "error": err.Error(), "tookMs": ms(time.Since(start))})
		return nil
	}
	print(object{"event": "svid", "svids": describe(svids), "tookMs": ms(time.Since(start))})
	return nil
}

// again runs a new process each time, so that each is attested anew.
func again(ctx context.Context, arguments []string) error {
	seconds, err := number(arguments[0])
	if err != nil {
		return err
	}
	ticker := time.NewTicker(time.Duration(seconds * float64(time.Second)))
	defer ticker.Stop()
	for {
		child := exec.CommandContext(ctx, "/proc/self/exe", "once")
		child.Stdout, child.Stderr = os.Stdout, os.Stderr
		if err := child.Run(); err != nil && ctx.Err() == nil {
			print(object{"event": "failed", "error": err.Error()})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func watch(ctx context.Context, _ []string) error {
	client, err := workloadapi.New(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	return client.WatchX509Context(ctx, watcher{})
}

type watcher struct{}

func (watcher) OnX509ContextUpdate(update *workloadapi.X509Context) {
	authorities := map[string]int{}
	for _, bundle := range update.Bundles.Bundles() {
		authorities[bundle.TrustDomain().Name()] = len(bundle.X509Authorities())
	}
	print(object{"event": "update", "svids": describe(update.SVIDs), "authorities": authorities, "unverified": unverified(update)})
}

// unverified says which SVIDs of an update its own bundles do not verify, and why.
func unverified(update *workloadapi.X509Context) []string {
	reasons := []string{}
	for _, svid := range update.SVIDs {
		if _, _, err := x509svid.Verify(svid.Certificates, update.Bundles); err != nil {
			reasons = append(reasons, svid.ID.String()+": "+err.Error())
		}
	}
	return reasons
}

func (watcher) OnX509ContextWatchError(err error) {
	print(object{"event": "error", "error": err.Error()})
}

func describe(svids []*x509svid.SVID) []object {
	described := []object{}
	for _, svid := range svids {
		leaf := svid.Certificates[0]
		described = append(described, object{
			"id":       svid.ID.String(),
			"hint":     svid.Hint,
			"serial":   leaf.SerialNumber.Text(16),
			"notAfter": leaf.NotAfter.UnixMilli(),
			"key":      fingerprint(leaf),
			"chain":    len(svid.Certificates),
			"root":     hex.EncodeToString(svid.Certificates[len(svid.Certificates)-1].AuthorityKeyId),
			"dnsNames": leaf.DNSNames,
		})
	}
	return described
}

func fingerprint(certificate *x509.Certificate) string {
	sum := sha256.Sum256(certificate.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:8])
}

// ageOfProcess is how long before main the kernel made this process, in steps of a clock tick (10 ms); -1 where it cannot be
// known. A container's process is made by the runtime, which sets it up and then executes the program in it.
func ageOfProcess() time.Duration {
	const ticksPerSecond, fieldsBeforeStart = 100, 19
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return -1
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) <= fieldsBeforeStart {
		return -1
	}
	ticks, err := strconv.ParseInt(fields[fieldsBeforeStart], 10, 64)
	var now unix.Timespec
	if err != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) != nil {
		return -1
	}
	sinceBoot := time.Duration(now.Nano()) - time.Since(began)
	return max(0, sinceBoot-time.Duration(ticks)*time.Second/ticksPerSecond)
}

func ms(d time.Duration) float64 {
	return float64(d.Microseconds()) / 1000
}

// facts prints the cgroup mode of the node and this process's own cgroups.
func facts(context.Context, []string) error {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	lines := strings.Count(string(text), "\n")
	unified := strings.Contains("\n"+string(text), "\n0::")
	mode := "v1"
	switch {
	case unified && lines == 1:
		mode = "v2"
	case unified:
		mode = "v1 and v2 (hybrid)"
	}
	print(object{"event": "facts", "cgroup": mode, "text": string(text)})
	return nil
}
