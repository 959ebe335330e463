package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"
)

// peer is the server's side of a wire, by hand.
type peer struct {
	t       *testing.T
	w       *wire
	encoder *hpack.Encoder
	block   bytes.Buffer
}

func newPeer(t *testing.T) *peer {
	p := &peer{t: t, w: newWire()}
	p.encoder = hpack.NewEncoder(&p.block)
	return p
}

func (p *peer) fields(pairs ...string) []byte {
	p.block.Reset()
	for i := 0; i < len(pairs); i += 2 {
		if err := p.encoder.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]}); err != nil {
			p.t.Fatal(err)
		}
	}
	return bytes.Clone(p.block.Bytes())
}

func frames(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func one(kind, flags byte, stream uint32, payload []byte) []byte {
	return appendFrame(nil, kind, flags, stream, payload)
}

// outcome is what a call has come to.
type outcome struct {
	messages []string
	ended    int
	err      error
}

func (p *peer) call() *outcome {
	o := &outcome{}
	p.w.begin(&call{path: pathJWT, request: framed([]byte("q")),
		onMessage: func(_ *call, _ time.Time, message []byte) { o.messages = append(o.messages, string(message)) },
		onEnd:     func(_ *call, _ time.Time, err error) { o.ended++; o.err = err }})
	return o
}

func codeName(err error) string {
	if err == nil {
		return "OK"
	}
	return codeOf(err)
}

func TestAnAnswerIsReadHoweverItIsCutUp(t *testing.T) {
	answer := func(p *peer) []byte {
		head := p.fields(":status", "200", "content-type", "application/grpc")
		body := framed([]byte("hello"))
		padded := append(append([]byte{3}, body[4:]...), 0, 0, 0)
		return frames(
			one(frameSettings, 0, 0, settingsPayload(settingMaxStreams, 10)),
			one(frameHeaders, 0, 1, head[:1]), one(frameContinued, flagEndHeaders, 1, head[1:]),
			one(frameData, 0, 1, body[:4]), one(frameData, flagPadded, 1, padded),
			one(frameHeaders, flagEndHeaders|flagEndStream, 1, p.fields("grpc-status", "0")))
	}
	for _, size := range []int{1, 2, 7, 1 << 20} {
		p := newPeer(t)
		o := p.call()
		bytes := answer(p)
		for len(bytes) > 0 {
			n := min(size, len(bytes))
			if err := p.w.feed(bytes[:n], time.Now()); err != nil {
				t.Fatal(err)
			}
			bytes = bytes[n:]
		}
		if o.ended != 1 || o.err != nil || len(o.messages) != 1 || o.messages[0] != "hello" {
			t.Errorf("in pieces of %d: %+v", size, o)
		}
	}
}

func TestWhatIsNotOKIsAFailureWithItsCode(t *testing.T) {
	refused := func(p *peer) []byte { return p.fields(":status", "200", "grpc-status", "7", "grpc-message", "no") }
	end := byte(flagEndHeaders | flagEndStream)
	for name, c := range map[string]struct {
		frames func(p *peer) []byte
		code   string
	}{
		"status":      {func(p *peer) []byte { return one(frameHeaders, end, 1, refused(p)) }, "PermissionDenied"},
		"HTTP status": {func(p *peer) []byte { return one(frameHeaders, end, 1, p.fields(":status", "502")) }, "Internal"},
		"no trailers": {func(*peer) []byte { return one(frameData, flagEndStream, 1, framed(nil)) }, "Internal"},
		"refused":     {func(*peer) []byte { return one(frameReset, 0, 1, []byte{0, 0, 0, 7}) }, "Unavailable"},
		"calm":        {func(*peer) []byte { return one(frameReset, 0, 1, []byte{0, 0, 0, 11}) }, "ResourceExhausted"},
		"going away":  {func(*peer) []byte { return one(frameGoAway, 0, 0, make([]byte, 8)) }, "Unavailable"},
		"cut off": {func(p *peer) []byte {
			return frames(one(frameData, 0, 1, []byte{0, 0}), one(frameHeaders, end, 1, p.fields(":status", "200", "grpc-status", "0")))
		}, "Internal"},
		"large frame":  {func(*peer) []byte { return []byte{1, 0, 0, 0, 0, 0, 0, 0, 1} }, "Internal"},
		"interrupted":  {func(*peer) []byte { return frames(one(frameHeaders, 0, 1, nil), one(framePing, 0, 0, make([]byte, 8))) }, "Internal"},
		"no such code": {func(p *peer) []byte { return one(frameHeaders, end, 1, p.fields(":status", "200", "grpc-status", "x")) }, "Internal"},
	} {
		p := newPeer(t)
		o := p.call()
		_ = p.w.feed(c.frames(p), time.Now())
		if o.ended != 1 || codeName(o.err) != c.code {
			t.Errorf("%s: ended %d times with %v", name, o.ended, o.err)
		}
	}
}

func TestACallWaitsForTheServersLimits(t *testing.T) {
	p := newPeer(t)
	if err := p.w.feed(one(frameSettings, 0, 0, settingsPayload(settingMaxStreams, 1)), time.Now()); err != nil {
		t.Fatal(err)
	}
	first, second := p.call(), p.call()
	if len(p.w.calls) != 1 || len(p.w.pending) != 1 {
		t.Fatalf("%d calls, %d wait", len(p.w.calls), len(p.w.pending))
	}
	done := one(frameHeaders, flagEndHeaders|flagEndStream, 1, p.fields(":status", "200", "grpc-status", "0"))
	if err := p.w.feed(done, time.Now()); err != nil {
		t.Fatal(err)
	}
	if first.ended != 1 || second.ended != 0 || len(p.w.calls) != 1 || len(p.w.pending) != 0 {
		t.Errorf("after the first: %+v %+v, %d wait", first, second, len(p.w.pending))
	}
}

func TestPingsAndSettingsAreAnsweredAndWindowsGivenBack(t *testing.T) {
	p := newPeer(t)
	p.call()
	p.w.out = nil
	part := frames([]byte{0}, binary.BigEndian.AppendUint32(nil, 1<<20), make([]byte, 16_000))
	input := frames(one(frameSettings, 0, 0, nil), one(framePing, 0, 0, []byte("12345678")), one(frameData, 0, 1, part))
	for range 40 {
		input = append(input, one(frameData, 0, 1, make([]byte, 16_000))...)
	}
	if err := p.w.feed(input, time.Now()); err != nil {
		t.Fatal(err)
	}
	want := frames(one(frameSettings, flagAck, 0, nil), one(framePing, flagAck, 0, []byte("12345678")))
	if !bytes.HasPrefix(p.w.out, want) || len(p.w.out) != len(want)+13 || p.w.out[len(want)+3] != frameWindowUpdate {
		t.Errorf("answered %x", p.w.out)
	}
}

func TestHeadersAreDecodableAndShortFromTheSecondCallOn(t *testing.T) {
	w := newWire()
	var names []string
	decoder := hpack.NewDecoder(4096, func(f hpack.HeaderField) { names = append(names, f.Name+"="+f.Value) })
	for i, path := range []string{pathJWT, pathJWT, pathValidate, pathJWT, pathValidate, pathJWT} {
		names = nil
		block := w.headers(path)
		if _, err := decoder.Write(block); err != nil {
			t.Fatal(err)
		}
		text := strings.Join(names, " ")
		if !strings.Contains(text, ":path="+path+" ") || !strings.Contains(text, "workload.spiffe.io=true") {
			t.Errorf("call %d: %s", i, text)
		}
		if i > 2 && len(block) > 16 {
			t.Errorf("call %d: %d bytes", i, len(block))
		}
	}
}

func TestALostConnectionEndsEveryCallOnce(t *testing.T) {
	p := newPeer(t)
	list := []*outcome{p.call(), p.call(), p.call()}
	p.w.fail(&failure{"Unavailable", "gone"}, time.Now())
	p.w.fail(&failure{"Unavailable", "gone again"}, time.Now())
	late := p.call()
	for _, o := range append(list, late) {
		var failed *failure
		if o.ended != 1 || !errors.As(o.err, &failed) || failed.text != "gone" {
			t.Errorf("%+v", o)
		}
	}
}

func TestFieldsOfAMessageAreFound(t *testing.T) {
	svid := frames([]byte{0x0a, 2, 'i', 'd'}, []byte{0x12, 3, 'a', '.', 'b'})
	id, token := tokenOf(frames([]byte{0x10, 5}, []byte{0x0a, byte(len(svid))}, svid))
	if string(id) != "id" || string(token) != "a.b" {
		t.Errorf("%q %q", id, token)
	}
	for _, broken := range [][]byte{nil, {0x0a}, {0x0a, 200}, {0xff}, {0x0a, 5, 1}} {
		if id, token := tokenOf(broken); id != nil || token != nil {
			t.Errorf("%x: %q %q", broken, id, token)
		}
	}
}

func TestPlainWritesArrive(t *testing.T) {
	p, err := plainWrites(20, 1000)
	if err != nil || p.WritesMs <= 0 || p.SpreadMs < 0 {
		t.Errorf("%+v %v", p, err)
	}
}
