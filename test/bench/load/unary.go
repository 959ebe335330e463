package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// unaryLoad is a closed loop of unary calls: each caller sends its next request when it has its answer.
type unaryLoad struct {
	path    string
	callers int
	// request is asked for each call and counted from 1; check looks at its only message.
	request func(n int) []byte
	check   func(n int, message []byte) error
}

// caller is one place in the loop.
type caller struct {
	call
	conn *conn
	n    int
	err  error
}

// drive runs a load for a time; calls under way when it is up are completed and counted. A caller whose connection is lost stops.
func (u *unaryLoad) drive(ctx context.Context, o *options, l *loop, conns []*conn, d time.Duration) (*tally, error) {
	var sum tally
	end := time.Now().Add(d)
	calls, open := 0, 0
	var again []*caller
	begin := func(c *caller) {
		calls++
		open++
		c.n, c.err = calls, nil
		c.request = u.request(c.n)
		c.conn.begin(&c.call)
	}
	for i := range u.callers {
		c := &caller{conn: conns[i%len(conns)]}
		c.path = u.path
		c.onMessage = func(_ *call, _ time.Time, message []byte) { c.err = u.check(c.n, message) }
		c.onEnd = func(_ *call, at time.Time, err error) {
			open--
			if err == nil && c.messages != 1 {
				err = wrongAnswer(fmt.Sprintf("%d messages in answer to one", c.messages))
			}
			if err == nil {
				err = c.err
			}
			sum.add(at.Sub(c.started), err)
			if ctx.Err() != nil || c.conn.dead != nil || !at.Before(end) || calls >= maxOperations {
				return
			}
			if err != nil {
				// A refusal may come in microseconds: without a pause the load would be one of refusals.
				again = append(again, c)
				return
			}
			begin(c)
		}
		begin(c)
	}
	for _, c := range conns {
		c.flush()
	}
	last := end.Add(o.timeout)
	_, err := l.run(func() bool {
		retry := again
		again = nil
		if len(retry) > 0 {
			time.Sleep(time.Millisecond)
		}
		for _, c := range retry {
			if time.Now().Before(end) && c.conn.dead == nil {
				begin(c)
				c.conn.flush()
			}
		}
		return open == 0 && len(again) == 0
	}, last)
	for range open {
		sum.fail("DeadlineExceeded", "no answer within "+o.timeout.String()+" after the end")
	}
	return &sum, err
}

// dialAll opens connections and makes one call on each, so that the load finds them ready. It returns the last answer.
func dialAll(l *loop, o *options, n int, path string, request []byte) ([]*conn, []byte, error) {
	var answer []byte
	conns := make([]*conn, n)
	for i := range conns {
		conns[i] = l.dial()
		message, err := l.once(conns[i], path, request, o.timeout)
		if err != nil {
			return nil, nil, fmt.Errorf("before the load: %w", err)
		}
		answer = message
	}
	return conns, answer, nil
}

// once makes one call and returns its first message. The call goes on when it is a stream.
func (l *loop) once(c *conn, path string, request []byte, patience time.Duration) ([]byte, error) {
	var answer []byte
	var failed error
	over := false
	c.begin(&call{
		path: path, request: request,
		onMessage: func(_ *call, _ time.Time, message []byte) {
			if answer == nil {
				answer = append([]byte{}, message...)
			}
		},
		onEnd: func(_ *call, _ time.Time, err error) { over, failed = true, err },
	})
	c.flush()
	_, err := l.run(func() bool { return over || answer != nil && path == pathX509 }, time.Now().Add(patience))
	switch {
	case err != nil:
		return nil, err
	case failed != nil:
		return nil, failed
	case answer == nil:
		return nil, &failure{"DeadlineExceeded", "no answer within " + patience.String()}
	}
	return answer, nil
}

// rawUnary is what jwt and validate do without grpc-go.
func rawUnary(ctx context.Context, o *options, shape concurrency, make func(token, id []byte) *unaryLoad) (*report, error) {
	l, err := newLoop(o.socket)
	if err != nil {
		return nil, err
	}
	defer l.end()
	conns, answer, err := dialAll(l, o, *shape.connections, pathJWT, jwtRequest("bench"))
	if err != nil {
		return nil, err
	}
	id, token := tokenOf(answer)
	if err := isToken(token); err != nil {
		return nil, err
	}
	load := make(token, id)
	load.callers = *shape.callers
	m := measure(o.pids)
	sum, err := load.drive(ctx, o, l, conns, *shape.duration)
	if err != nil {
		return nil, err
	}
	return m.report(sum, o.settle), nil
}

func rawJWT(distinct bool) func(token, id []byte) *unaryLoad {
	run := fmt.Sprintf("bench-%d-%d-", os.Getpid(), time.Now().UnixNano())
	audience := func(n int) string {
		if distinct {
			return fmt.Sprint(run, n)
		}
		return "bench"
	}
	same := jwtRequest("bench")
	return func(_, _ []byte) *unaryLoad {
		return &unaryLoad{
			path: pathJWT,
			request: func(n int) []byte {
				if !distinct {
					return same
				}
				return jwtRequest(audience(n))
			},
			check: func(n int, message []byte) error {
				_, token := tokenOf(message)
				err := isToken(token)
				// One in 64 is decoded: enough to find an agent that mixes tokens up, too few to cost the driver much.
				if err == nil && n%64 == 0 {
					err = checkAudience(string(token), audience(n))
				}
				return err
			},
		}
	}
}

func rawValidate(token, id []byte) *unaryLoad {
	request, want := validateRequest("bench", string(token)), string(id)
	return &unaryLoad{
		path:    pathValidate,
		request: func(int) []byte { return request },
		check: func(_ int, message []byte) error {
			if got := fieldOf(message, 1); string(got) != want {
				return wrongAnswer(fmt.Sprintf("validated as %q instead of %q", got, want))
			}
			return nil
		},
	}
}
