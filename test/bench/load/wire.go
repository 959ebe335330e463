package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/net/http2/hpack"
)

// Frame types, flags and settings (RFC 9113 §6).
const (
	frameData, frameHeaders, frameReset, frameSettings        = 0x0, 0x1, 0x3, 0x4
	framePing, frameGoAway, frameWindowUpdate, frameContinued = 0x6, 0x7, 0x8, 0x9

	flagAck, flagEndStream, flagEndHeaders, flagPadded, flagPriority = 0x1, 0x1, 0x4, 0x8, 0x20

	settingTableSize, settingPush, settingMaxStreams, settingWindow, settingMaxFrame = 1, 2, 3, 4, 5
)

const (
	preface       = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	defaultWindow = 65_535
	streamWindow  = 1 << 20
	sessionWindow = 1 << 30
	maxFrameSize  = 16_384
	maxMessage    = 4 << 20
)

// call is one request and what has come back. Its owner may use it again after onEnd.
type call struct {
	path    string
	request []byte // with the five bytes of gRPC's prefix
	started time.Time
	// onMessage gets each message, only valid during the call; at is when it had been read.
	onMessage func(c *call, at time.Time, message []byte)
	// onEnd is called once. err is nil after grpc-status 0, a failure otherwise.
	onEnd func(c *call, at time.Time, err error)

	id       uint32
	body     []byte
	received int // of the stream's window, not yet given back
	http     string
	status   string
	reason   string
	messages int
}

// failure is a call that did not succeed, by the name of a gRPC status code.
type failure struct{ code, text string }

func (f *failure) Error() string { return f.code + ": " + f.text }

// wire is the client's side of one HTTP/2 connection: bytes in, bytes out, no system calls. Requests are encoded as grpc-go
// does it, with the names and values in the peer's table after the first, so that the peer's work is the same.
type wire struct {
	out     []byte
	in      []byte
	encoder *hpack.Encoder
	encoded bytes.Buffer
	blocks  map[string][]byte // header blocks of paths whose fields are all in the peer's table
	decoder *hpack.Decoder
	block   []byte // a header block that goes on in CONTINUATION
	blockOf uint32
	ends    bool
	current *call // whose fields are being decoded

	nextID     uint32
	calls      map[uint32]*call
	pending    []*call
	maxStreams int
	peerWindow int // of a new stream
	window     int // of the connection, for what we send
	received   int
	away       bool
	dead       error
}

func newWire() *wire {
	w := &wire{nextID: 1, calls: map[uint32]*call{}, blocks: map[string][]byte{}, maxStreams: 1 << 30,
		peerWindow: defaultWindow, window: defaultWindow}
	w.encoder = hpack.NewEncoder(&w.encoded)
	w.decoder = hpack.NewDecoder(4096, w.field)
	w.out = append(w.out, preface...)
	w.out = appendFrame(w.out, frameSettings, 0, 0, settingsPayload(settingPush, 0, settingWindow, streamWindow))
	w.out = appendFrame(w.out, frameWindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, sessionWindow-defaultWindow))
	return w
}

func appendFrame(to []byte, kind, flags byte, stream uint32, payload []byte) []byte {
	n := len(payload)
	to = append(to, byte(n>>16), byte(n>>8), byte(n), kind, flags)
	return append(binary.BigEndian.AppendUint32(to, stream), payload...)
}

func settingsPayload(pairs ...int) []byte {
	var payload []byte
	for i := 0; i < len(pairs); i += 2 {
		payload = binary.BigEndian.AppendUint16(payload, uint16(pairs[i]))
		payload = binary.BigEndian.AppendUint32(payload, uint32(pairs[i+1]))
	}
	return payload
}

// begin sends a call's request, or keeps it until the peer's limits allow it.
func (w *wire) begin(c *call) {
	c.started = time.Now()
	c.body, c.received, c.http, c.status, c.reason, c.messages = c.body[:0], 0, "", "", "", 0
	if w.dead != nil || w.away {
		c.onEnd(c, c.started, w.gone())
		return
	}
	if len(w.calls) >= w.maxStreams || len(c.request) > w.window || len(w.pending) > 0 {
		w.pending = append(w.pending, c)
		return
	}
	w.send(c)
}

func (w *wire) gone() error {
	if w.dead != nil {
		return w.dead
	}
	return &failure{"Unavailable", "the server has said GOAWAY"}
}

func (w *wire) send(c *call) {
	if len(c.request) > w.peerWindow || len(c.request) > maxFrameSize {
		c.onEnd(c, time.Now(), &failure{"ResourceExhausted", "the request is larger than the server's window"})
		return
	}
	c.id = w.nextID
	w.nextID += 2
	w.calls[c.id] = c
	w.out = appendFrame(w.out, frameHeaders, flagEndHeaders, c.id, w.headers(c.path))
	w.out = appendFrame(w.out, frameData, flagEndStream, c.id, c.request)
	w.window -= len(c.request)
}

func (w *wire) headers(path string) []byte {
	if block := w.blocks[path]; block != nil {
		return block
	}
	w.encoded.Reset()
	for _, field := range []hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: path},
		{Name: ":authority", Value: "localhost"}, {Name: "content-type", Value: "application/grpc"},
		{Name: "user-agent", Value: "signet-bench"}, {Name: "te", Value: "trailers"}, {Name: "workload.spiffe.io", Value: "true"},
	} {
		// Writing to a bytes.Buffer does not fail.
		_ = w.encoder.WriteField(field)
	}
	block := bytes.Clone(w.encoded.Bytes())
	// Eight fields by index are no longer than 16 bytes: the block is the same until a field is added to the table.
	if len(block) <= 16 {
		w.blocks[path] = block
	} else {
		clear(w.blocks)
	}
	return block
}

// feed takes what was read at one moment. An error ends the connection and has been told to all calls.
func (w *wire) feed(data []byte, at time.Time) error {
	if len(w.in) > 0 {
		w.in = append(w.in, data...)
		data = w.in
	}
	for w.dead == nil && len(data) >= 9 {
		n := int(data[0])<<16 | int(data[1])<<8 | int(data[2])
		if n > maxFrameSize {
			w.fail(&failure{"Internal", fmt.Sprintf("a frame of %d bytes", n)}, at)
			break
		}
		if len(data) < 9+n {
			break
		}
		if err := w.frame(data[3], data[4], binary.BigEndian.Uint32(data[5:9])&0x7fffffff, data[9:9+n], at); err != nil {
			w.fail(err, at)
			break
		}
		data = data[9+n:]
	}
	w.in = append(w.in[:0], data...)
	for len(w.pending) > 0 && len(w.calls) < w.maxStreams && len(w.pending[0].request) <= w.window && w.dead == nil {
		c := w.pending[0]
		w.pending = w.pending[1:]
		w.send(c)
	}
	return w.dead
}

// fail ends the connection: every call that is open or waits is told once.
func (w *wire) fail(err error, at time.Time) {
	if w.dead != nil {
		return
	}
	w.dead = err
	open := w.pending
	for _, c := range w.calls {
		open = append(open, c)
	}
	w.calls, w.pending = map[uint32]*call{}, nil
	for _, c := range open {
		c.onEnd(c, at, err)
	}
}
