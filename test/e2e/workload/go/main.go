// Command workload is what runs in the pods of the end-to-end tests: a workload that uses go-spiffe, or one that misuses the
// socket. It prints one JSON object per line; "t" is Unix time in milliseconds.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Package variables of main come after the initialisation of everything imported and before main.
var began = time.Now()

const callTimeout = 30 * time.Second

const usage = `usage: workload COMMAND
  first                 fetch at once, print, then stay
  once                  fetch and end
  again SECONDS         a new process that fetches, every so often
  watch                 print every update and every error
  serve PORT            mutual TLS: answer each peer with its own ID
  dial HOST:PORT ID     mutual TLS: print what the server saw
  token AUDIENCE        print a JWT-SVID
  verify AUDIENCE TOKEN have a JWT-SVID verified, and verify it
  load RATE SECONDS     connect, fetch, close, so many times a second
  heir                  fetch, fork, exit: what does the child still read?
  late                  connect, fork, exit: what does the child get with the connection?
  pass PATH             fetch, pass the connection over the socket PATH, exit
  receive PATH          what can be read on a connection that came over PATH
  cgroup POD_UID        fetch from inside made-up cgroups that name another pod
  facts                 print the cgroups
  stay                  do nothing`

type object map[string]any

type command struct {
	arguments int
	run       func(ctx context.Context, arguments []string) error
}

var commands = map[string]command{
	"first":   {0, first},
	"once":    {0, once},
	"again":   {1, again},
	"watch":   {0, watch},
	"serve":   {1, serve},
	"dial":    {2, dial},
	"token":   {1, token},
	"verify":  {2, verify},
	"load":    {2, load},
	"heir":    {0, heir},
	"late":    {0, late},
	"pass":    {1, pass},
	"receive": {1, receive},
	"cgroup":  {1, cgroup},
	"facts":   {0, facts},
	"stay":    {0, stay},

	"heir-parent": {0, heirParent},
	"heir-child":  {0, heirChild},
	"late-parent": {0, lateParent},
	"late-child":  {0, lateChild},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if len(os.Args) < 2 {
		fail(usage)
	}
	chosen, known := commands[os.Args[1]]
	if !known || len(os.Args)-2 != chosen.arguments {
		fail(usage)
	}
	if err := chosen.run(ctx, os.Args[2:]); err != nil && ctx.Err() == nil {
		print(object{"event": "failed", "error": err.Error()})
		os.Exit(1)
	}
}

func fail(text string) {
	fmt.Fprintln(os.Stderr, text)
	os.Exit(2)
}

var output sync.Mutex

func print(line object) {
	line["t"] = milliseconds(time.Now())
	output.Lock()
	defer output.Unlock()
	if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

func milliseconds(t time.Time) float64 {
	return float64(t.UnixMicro()) / 1000
}

func stay(ctx context.Context, _ []string) error {
	print(object{"event": "staying"})
	<-ctx.Done()
	return nil
}

// number reads a positive number of an argument.
func number(text string) (float64, error) {
	value, err := strconv.ParseFloat(text, 64)
	if err != nil || value <= 0 {
		return 0, fmt.Errorf("%q: want a positive number", text)
	}
	return value, nil
}
