package main

import (
	"context"
	"encoding/base64"
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

func TestPercentilesAreNearestRanks(t *testing.T) {
	var durations []time.Duration
	for i := 200; i > 0; i-- {
		durations = append(durations, time.Duration(i)*time.Millisecond)
	}
	if got, want := *percentiles(durations), (latency{P50: 100, P90: 180, P99: 198, Max: 200}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := *percentiles(durations[:1]), (latency{P50: 200, P90: 200, P99: 200, Max: 200}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if percentiles(nil) != nil {
		t.Error("percentiles of nothing")
	}
}

func TestHammerEndsAtItsCountAndCountsErrorsByCode(t *testing.T) {
	var calls, started atomic.Int64
	o := &options{timeout: time.Second}
	sum := hammer(t.Context(), o, 3, bounds{count: 100}, &started, func(context.Context, int) (time.Duration, error) {
		switch n := calls.Add(1); {
		case n%10 == 0:
			return 0, wrongAnswer("no")
		case n%10 == 1:
			return 0, errors.New("no status")
		}
		return time.Millisecond, nil
	})
	if calls.Load() != 100 || len(sum.durations) != 80 || sum.errors["wrong_answer"] != 10 || sum.errors["Unknown"] != 10 {
		t.Errorf("%d calls, %d counted, errors %v", calls.Load(), len(sum.durations), sum.errors)
	}
}

func TestATokenForAnotherAudienceIsNoticed(t *testing.T) {
	token := func(claims string) string {
		return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
	}
	for claims, right := range map[string]bool{
		`{"aud":["a"]}`: true, `{"aud":"a"}`: true, `{"aud":["b"]}`: false,
		`{"aud":"b"}`: false, `{"aud":["a","b"]}`: false, `{}`: false,
	} {
		if err := checkAudience(token(claims), "a"); (err == nil) != right {
			t.Errorf("%s: %v", claims, err)
		}
	}
}

func TestAProcessIsMeasured(t *testing.T) {
	u := usageOf(os.Getpid())
	if u.Error != "" || u.RSS < 1000 || u.PSS == 0 || u.Anonymous == 0 || u.Anonymous > u.RSS || u.FDs < 3 {
		t.Errorf("%+v", u)
	}
	if cpuSeconds(os.Getpid()) <= 0 {
		t.Error("no CPU time")
	}
	if u := usageOf(1 << 30); u.Error == "" {
		t.Error("a process that is not there was measured")
	}
}
