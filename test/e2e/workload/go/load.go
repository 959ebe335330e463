package main

import (
	"context"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type tally struct {
	sync.Mutex
	answered, unreachable, refused int
	slowest                        time.Duration
	texts                          map[string]int
}

// load counts three ends of an attempt: answered; unreachable (no socket, or connect refused); refused (any gRPC error).
func load(ctx context.Context, arguments []string) error {
	rate, err := number(arguments[0])
	if err != nil {
		return err
	}
	seconds, err := number(arguments[1])
	if err != nil {
		return err
	}
	counted := &tally{texts: map[string]int{}}
	var running sync.WaitGroup
	ticker := time.NewTicker(time.Duration(float64(time.Second) / rate))
	defer ticker.Stop()
	print(object{"event": "loading"})
	end := time.After(time.Duration(seconds * float64(time.Second)))
	for started := 0; ; started++ {
		select {
		case <-ticker.C:
			running.Go(func() { attempt(counted) })
			continue
		case <-ctx.Done():
		case <-end:
		}
		running.Wait()
		print(object{"event": "loaded", "started": started, "answered": counted.answered, "unreachable": counted.unreachable,
			"refused": counted.refused, "slowestMs": ms(counted.slowest), "texts": counted.texts})
		return nil
	}
}

func attempt(counted *tally) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	start := time.Now()
	var unreachable error
	dialer := func(ctx context.Context, _ string) (net.Conn, error) {
		connection, err := connect(ctx)
		if err != nil {
			unreachable = err
		}
		return connection, err
	}
	_, err := workloadapi.FetchX509SVIDs(ctx, workloadapi.WithDialOptions(grpc.WithContextDialer(dialer)))
	took := time.Since(start)
	counted.Lock()
	defer counted.Unlock()
	counted.slowest = max(counted.slowest, took)
	switch {
	case err == nil:
		counted.answered++
	case unreachable != nil:
		counted.unreachable++
		counted.texts[unreachable.Error()]++
	default:
		counted.refused++
		counted.texts[status.Code(err).String()+": "+err.Error()]++
	}
	if err != nil {
		print(object{"event": "unanswered", "code": status.Code(err).String(), "canceled": status.Code(err) == codes.Canceled, "error": err.Error(), "tookMs": ms(took)})
	}
}

func connect(ctx context.Context) (net.Conn, error) {
	path := strings.TrimPrefix(os.Getenv("SPIFFE_ENDPOINT_SOCKET"), "unix://")
	return (&net.Dialer{}).DialContext(ctx, "unix", path)
}
