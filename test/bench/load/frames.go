package main

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
)

// frame handles one whole frame. An error is one of the connection.
func (w *wire) frame(kind, flags byte, stream uint32, payload []byte, at time.Time) error {
	if w.blockOf != 0 && (kind != frameContinued || stream != w.blockOf) {
		return &failure{"Internal", "a header block is interrupted"}
	}
	switch kind {
	case frameData:
		return w.data(flags, stream, payload, at)
	case frameHeaders:
		payload, err := unpad(flags, payload)
		if err != nil {
			return err
		}
		if flags&flagPriority != 0 {
			if len(payload) < 5 {
				return &failure{"Internal", "HEADERS are too short"}
			}
			payload = payload[5:]
		}
		w.blockOf, w.ends = stream, flags&flagEndStream != 0
		return w.fields(flags, payload, at)
	case frameContinued:
		if w.blockOf == 0 {
			return &failure{"Internal", "CONTINUATION without HEADERS"}
		}
		return w.fields(flags, payload, at)
	case frameSettings:
		return w.settings(flags, payload)
	case framePing:
		if flags&flagAck == 0 {
			w.out = appendFrame(w.out, framePing, flagAck, 0, payload)
		}
	case frameWindowUpdate:
		// A request is one frame within the first window of its stream, so that only the connection's counts.
		if stream == 0 && len(payload) == 4 {
			w.window += int(binary.BigEndian.Uint32(payload) & 0x7fffffff)
		}
	case frameReset:
		if c := w.calls[stream]; c != nil && len(payload) == 4 {
			w.end(c, at, resetFailure(binary.BigEndian.Uint32(payload)))
		}
	case frameGoAway:
		return w.goAway(payload, at)
	}
	return nil
}

func unpad(flags byte, payload []byte) ([]byte, error) {
	if flags&flagPadded == 0 {
		return payload, nil
	}
	if len(payload) == 0 || int(payload[0]) >= len(payload) {
		return nil, &failure{"Internal", "wrong padding"}
	}
	return payload[1 : len(payload)-int(payload[0])], nil
}

func (w *wire) settings(flags byte, payload []byte) error {
	if flags&flagAck != 0 {
		return nil
	}
	if len(payload)%6 != 0 {
		return &failure{"Internal", "SETTINGS of a wrong length"}
	}
	for ; len(payload) > 0; payload = payload[6:] {
		value := binary.BigEndian.Uint32(payload[2:6])
		switch binary.BigEndian.Uint16(payload) {
		case settingMaxStreams:
			w.maxStreams = int(value)
		case settingWindow:
			w.peerWindow = int(value)
		case settingTableSize:
			w.encoder.SetMaxDynamicTableSizeLimit(value)
			clear(w.blocks)
		}
	}
	w.out = appendFrame(w.out, frameSettings, flagAck, 0, nil)
	return nil
}

func (w *wire) data(flags byte, stream uint32, payload []byte, at time.Time) error {
	size := len(payload)
	payload, err := unpad(flags, payload)
	if err != nil {
		return err
	}
	if w.received += size; w.received > sessionWindow/2 {
		w.out = appendFrame(w.out, frameWindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, uint32(w.received)))
		w.received = 0
	}
	c := w.calls[stream]
	if c == nil {
		return nil
	}
	if c.received += size; c.received > streamWindow/2 && flags&flagEndStream == 0 {
		w.out = appendFrame(w.out, frameWindowUpdate, 0, stream, binary.BigEndian.AppendUint32(nil, uint32(c.received)))
		c.received = 0
	}
	c.body = append(c.body, payload...)
	rest := c.body
	for len(rest) >= 5 {
		n := int(binary.BigEndian.Uint32(rest[1:5]))
		if rest[0] != 0 || n > maxMessage {
			return &failure{"Internal", fmt.Sprintf("a message with flag %d and %d bytes", rest[0], n)}
		}
		if len(rest) < 5+n {
			break
		}
		c.messages++
		c.onMessage(c, at, rest[5:5+n])
		rest = rest[5+n:]
	}
	c.body = append(c.body[:0], rest...)
	if flags&flagEndStream != 0 {
		w.end(c, at, &failure{"Internal", "the answer ended without trailers"})
	}
	return nil
}

// fields decodes a header block when it is whole; one of an unknown stream too, because the table is shared.
func (w *wire) fields(flags byte, part []byte, at time.Time) error {
	if flags&flagEndHeaders == 0 || len(w.block) > 0 {
		w.block = append(w.block, part...)
		part = w.block
	}
	if flags&flagEndHeaders == 0 {
		return nil
	}
	stream := w.blockOf
	w.current = w.calls[stream]
	_, err := w.decoder.Write(part)
	if err == nil {
		err = w.decoder.Close()
	}
	c := w.current
	w.block, w.blockOf, w.current = w.block[:0], 0, nil
	if err != nil {
		return &failure{"Internal", "a header block does not decode: " + err.Error()}
	}
	if c != nil && w.ends {
		w.end(c, at, statusOf(c))
	}
	return nil
}

func (w *wire) field(f hpack.HeaderField) {
	if w.current == nil {
		return
	}
	switch f.Name {
	case ":status":
		w.current.http = f.Value
	case "grpc-status":
		w.current.status = f.Value
	case "grpc-message":
		w.current.reason = f.Value
	}
}

func statusOf(c *call) error {
	switch {
	case c.http != "200":
		return &failure{"Internal", "HTTP status " + strconv.Quote(c.http)}
	case c.status == "0" && len(c.body) > 0:
		return &failure{"Internal", "a message was cut off"}
	case c.status == "0":
		return nil
	}
	code, err := strconv.Atoi(c.status)
	if err != nil {
		return &failure{"Internal", "grpc-status " + strconv.Quote(c.status)}
	}
	return &failure{codes.Code(code).String(), c.reason}
}

// resetFailure is gRPC's mapping of HTTP/2 error codes (PROTOCOL-HTTP2.md, "Errors").
func resetFailure(code uint32) error {
	name := "Internal"
	switch code {
	case 7:
		name = "Unavailable"
	case 8:
		name = "Canceled"
	case 11:
		name = "ResourceExhausted"
	}
	return &failure{name, fmt.Sprintf("the stream was reset with code %d", code)}
}

// goAway ends the calls that the peer will not answer; the others go on.
func (w *wire) goAway(payload []byte, at time.Time) error {
	if len(payload) < 8 {
		return &failure{"Internal", "GOAWAY is too short"}
	}
	w.away = true
	last := binary.BigEndian.Uint32(payload) & 0x7fffffff
	code := binary.BigEndian.Uint32(payload[4:])
	err := &failure{"Unavailable", fmt.Sprintf("GOAWAY with code %d: %s", code, payload[8:])}
	waiting := w.pending
	w.pending = nil
	for id, c := range w.calls {
		if id > last {
			delete(w.calls, id)
			waiting = append(waiting, c)
		}
	}
	for _, c := range waiting {
		c.onEnd(c, at, err)
	}
	return nil
}

func (w *wire) end(c *call, at time.Time, err error) {
	delete(w.calls, c.id)
	c.onEnd(c, at, err)
}
