package main

import (
	"context"
	"crypto/x509"
	"flag"
	"slices"
	"sync"
	"time"
)

// rotation is how one new certificate reached the streams.
type rotation struct {
	Serial   string  `json:"serial"`
	Streams  int     `json:"streams"`   // that received it
	SpreadMs float64 `json:"spread_ms"` // first to last stream
	// Of the certificate that it replaced, at the first push: seconds that it was still valid, and the share of
	// notBefore-notAfter that was gone.
	LeftSeconds float64 `json:"left_s"`
	LifeGone    float64 `json:"life_gone"`

	first, last time.Time
}

type rotateDetail struct {
	Rotations []*rotation `json:"rotations"`
	// Streams that at some moment held an expired certificate and had nothing newer.
	Expired    int            `json:"expired"`
	Broken     int            `json:"broken"` // streams that ended
	BrokenBy   map[string]int `json:"broken_by"`
	Repeated   int            `json:"repeated"`   // messages with the certificate that the stream already held
	Incomplete int            `json:"incomplete"` // rotations that did not reach every stream
	Wrong      map[string]int `json:"wrong"`      // certificates that failed the checks, by reason
	TTLSeconds float64        `json:"ttl_s"`      // notBefore to notAfter of the first certificate
	// The size of a message, and what as many plain writes of that size to Unix sockets take.
	MessageBytes int    `json:"message_bytes"`
	Plain        *plain `json:"plain"`
}

// holder is what one stream holds now.
type holder struct {
	leaf    *x509.Certificate
	expired bool
}

// watcher follows the certificates on all streams.
type watcher struct {
	mu        sync.Mutex
	parsed    map[string]*x509.Certificate // by the response's bytes
	holders   []holder
	rotations []*rotation
	bySerial  map[string]*rotation
	detail    rotateDetail
}

func setupRotate(flags *flag.FlagSet) func(context.Context, *options) (*report, error) {
	n := flags.Int("n", 100, "streams, each on a connection of its own")
	duration := flags.Duration("for", 5*time.Minute, "how long to watch")
	return func(ctx context.Context, o *options) (*report, error) {
		if err := between("n", *n, maxConnections); err != nil {
			return nil, err
		}
		if err := during("for", *duration); err != nil {
			return nil, err
		}
		w := &watcher{parsed: map[string]*x509.Certificate{}, holders: make([]holder, *n), bySerial: map[string]*rotation{}}
		w.detail.Wrong = map[string]int{}
		m := measure(o.pids)
		set, err := openStreams(ctx, o, *n, w.receive)
		if err != nil {
			return nil, err
		}
		first := set.waitFirst(ctx, o.timeout)
		pause(ctx, *duration)
		w.settle(ctx)
		result := m.report(first, 0)
		w.detail.Broken, w.detail.BrokenBy = set.brokenStreams()
		set.close()
		detail := w.finish(*n)
		if detail.Plain, err = plainWrites(*n, max(detail.MessageBytes, 1)); err != nil {
			return nil, err
		}
		result.Detail = detail
		return result, nil
	}
}

func (w *watcher) receive(stream int, at time.Time, message []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	leaf := w.parse(message, at)
	if leaf == nil {
		return
	}
	h := &w.holders[stream]
	old := h.leaf
	h.leaf = leaf
	switch {
	case old == nil:
		return
	case old.Equal(leaf):
		w.detail.Repeated++
		return
	case at.After(old.NotAfter):
		h.expired = true
	}
	w.push(leaf.SerialNumber.String(), old, at)
}

func (w *watcher) push(serial string, old *x509.Certificate, at time.Time) {
	r := w.bySerial[serial]
	if r == nil {
		life := old.NotAfter.Sub(old.NotBefore).Seconds()
		r = &rotation{Serial: serial, first: at, last: at,
			LeftSeconds: old.NotAfter.Sub(at).Seconds(), LifeGone: at.Sub(old.NotBefore).Seconds() / life}
		w.bySerial[serial] = r
		w.rotations = append(w.rotations, r)
	}
	r.Streams++
	// Streams take the lock in any order.
	if at.Before(r.first) {
		r.first = at
	}
	if at.After(r.last) {
		r.last = at
	}
}

// parse checks each different response once: all streams of one identity receive the same bytes.
func (w *watcher) parse(message []byte, at time.Time) *x509.Certificate {
	if leaf, known := w.parsed[string(message)]; known {
		return leaf
	}
	response, err := decodeX509(message)
	var leaf *x509.Certificate
	if err == nil {
		leaf, err = checkSVID(response, at)
	}
	if err != nil {
		w.detail.Wrong[err.Error()]++
	}
	if leaf != nil && len(w.parsed) == 0 {
		w.detail.TTLSeconds = leaf.NotAfter.Sub(leaf.NotBefore).Seconds()
	}
	w.parsed[string(message)] = leaf
	w.detail.MessageBytes = len(message)
	return leaf
}

// settle waits, at most five seconds, until no renewal is half way through the streams.
func (w *watcher) settle(ctx context.Context) {
	for range 50 {
		if ctx.Err() != nil || w.even() {
			return
		}
		pause(ctx, 100*time.Millisecond)
	}
}

func (w *watcher) even() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !slices.ContainsFunc(w.rotations, func(r *rotation) bool { return r.Streams < len(w.holders) })
}

func (w *watcher) finish(n int) rotateDetail {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for _, h := range w.holders {
		if h.expired || (h.leaf != nil && now.After(h.leaf.NotAfter)) {
			w.detail.Expired++
		}
	}
	for _, r := range w.rotations {
		r.SpreadMs = float64(r.last.Sub(r.first).Nanoseconds()) / 1e6
		if r.Streams < n {
			w.detail.Incomplete++
		}
	}
	slices.SortFunc(w.rotations, func(a, b *rotation) int { return a.first.Compare(b.first) })
	w.detail.Rotations = w.rotations
	return w.detail
}
