// Command load puts a bounded load on a SPIFFE Workload API and prints what it saw as one JSON object.
//
//	load await                     wait until the socket serves; when the first X509-SVID came
//	load first -n N                first X509-SVID over a new connection, one after the other
//	load jwt -c C -conns K -d D    FetchJWTSVID; -distinct: a new audience for each call
//	load validate -c C -conns K -d D
//	load streams -n N -hold D      N FetchX509SVID streams on N connections: memory for each, idle CPU, memory after the close
//	load storm -n N                N connections at one instant; -own UID: N processes, each under its own user
//	load storms -n N -times T      one storm after the other, until one loses a caller
//	load reconnect -n N            N streams that connect again when the agent is started again
//	load fair -noise UID -victim UID -n N   first X509-SVIDs of one user, alone and beside the noise of another
//	load churn -c C (-d D | -n N)  connect, fetch, close
//	load one, load noise           what storm -own and fair start
//	load rotate -n N -for D        N streams: how each renewal reached them
//
// Every command takes -socket PATH, -pid PID[,PID...] and -timeout D. Exit codes: 0 the load ran (errors of calls are
// counted in the object), 1 it could not run, 2 usage.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Bounds of every load, so that a mistyped flag cannot occupy the machine.
const (
	maxConnections = 10_000
	maxOperations  = 5_000_000
	maxDuration    = time.Hour
)

// options are the flags that all commands share.
type options struct {
	socket  string
	pids    []int
	timeout time.Duration
	settle  time.Duration
	via     string
}

// The two clients: frames written by hand, which cost so little that the agent is what is measured, and grpc-go, which is what
// workloads have.
const (
	viaRaw  = "raw"
	viaGRPC = "grpc-go"
)

// command reads its own flags in setup and returns the load.
type command struct {
	name  string
	setup func(flags *flag.FlagSet) func(ctx context.Context, options *options) (*report, error)
}

var commands = []command{
	{"await", setupAwait},
	{"first", setupFirst},
	{"jwt", setupJWT},
	{"validate", setupValidate},
	{"streams", setupStreams},
	{"storm", setupStorm},
	{"storms", setupStorms},
	{"one", setupOne},
	{"reconnect", setupReconnect},
	{"noise", setupNoise},
	{"fair", setupFair},
	{"churn", setupChurn},
	{"rotate", setupRotate},
}

func main() {
	// The driver shares the machine with what it measures: less garbage collection leaves more of it to the agent.
	debug.SetGCPercent(400)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	result, err := run(ctx, os.Args[1:])
	if err == nil && ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	var usage usageError
	switch {
	case errors.As(err, &usage):
		fmt.Fprintln(os.Stderr, "load: "+err.Error())
		os.Exit(2)
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "load: "+err.Error())
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		os.Exit(1)
	}
}

type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

func run(ctx context.Context, args []string) (*report, error) {
	if len(args) == 0 {
		return nil, usageError{"which command? one of " + names()}
	}
	for _, c := range commands {
		if c.name == args[0] {
			return runCommand(ctx, c, args[1:])
		}
	}
	return nil, usageError{fmt.Sprintf("unknown command %q: allowed are %s", args[0], names())}
}

func runCommand(ctx context.Context, c command, args []string) (*report, error) {
	var o options
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	flags.StringVar(&o.socket, "socket", "", "path of the Workload API's Unix socket")
	flags.DurationVar(&o.timeout, "timeout", 20*time.Second, "longest wait for one answer")
	flags.DurationVar(&o.settle, "settle", 0, "how long to wait before the memory afterwards is read")
	flags.StringVar(&o.via, "via", viaRaw, "client: raw or grpc-go")
	flags.Func("pid", "processes under test, the agent first: PID[,PID...]", func(text string) (err error) {
		o.pids, err = parsePIDs(text)
		return err
	})
	load := c.setup(flags)
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil, err
		}
		return nil, usageError{err.Error()}
	}
	switch {
	case flags.NArg() > 0:
		return nil, usageError{fmt.Sprintf("unexpected argument %q", flags.Arg(0))}
	case o.socket == "":
		return nil, usageError{"-socket PATH is required"}
	case o.via != viaRaw && o.via != viaGRPC:
		return nil, usageError{fmt.Sprintf("-via %s: allowed are %s and %s", o.via, viaRaw, viaGRPC)}
	case o.settle < 0 || o.settle > maxDuration:
		return nil, usageError{fmt.Sprintf("-settle %s: allowed is 0 to %s", o.settle, maxDuration)}
	case o.timeout <= 0 || o.timeout > maxDuration:
		return nil, usageError{fmt.Sprintf("-timeout %s: allowed is more than 0 and at most %s", o.timeout, maxDuration)}
	}
	result, err := load(ctx, &o)
	if err != nil {
		return nil, err
	}
	result.Command, result.Args = c.name, args
	return result, nil
}

func names() string {
	list := make([]string, len(commands))
	for i, c := range commands {
		list[i] = c.name
	}
	return strings.Join(list, ", ")
}

func parsePIDs(text string) ([]int, error) {
	var pids []int
	for part := range strings.SplitSeq(text, ",") {
		pid, err := strconv.Atoi(part)
		if err != nil || pid <= 0 {
			return nil, fmt.Errorf("%q is no process ID", part)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// between refuses a count outside of 1 to most.
func between(name string, value, most int) error {
	if value < 1 || value > most {
		return usageError{fmt.Sprintf("-%s %d: allowed is 1 to %d", name, value, most)}
	}
	return nil
}

// during refuses a duration outside of 0 (excluded) to maxDuration.
func during(name string, value time.Duration) error {
	if value <= 0 || value > maxDuration {
		return usageError{fmt.Sprintf("-%s %s: allowed is more than 0 and at most %s", name, value, maxDuration)}
	}
	return nil
}
