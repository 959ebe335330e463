package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Methods of the Workload API, and of it the requests and answers as bytes: cheap enough for each call of a hot loop.
const (
	pathX509     = "/SpiffeWorkloadAPI/FetchX509SVID"
	pathJWT      = "/SpiffeWorkloadAPI/FetchJWTSVID"
	pathValidate = "/SpiffeWorkloadAPI/ValidateJWTSVID"
)

// framed puts gRPC's prefix before a message.
func framed(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

func jwtRequest(audience string) []byte {
	return framed(protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), audience))
}

func validateRequest(audience, token string) []byte {
	message := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), audience)
	return framed(protowire.AppendString(protowire.AppendTag(message, 2, protowire.BytesType), token))
}

// fieldOf is the first length-delimited field with that number, or nil.
func fieldOf(message []byte, number protowire.Number) []byte {
	for len(message) > 0 {
		found, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return nil
		}
		message = message[n:]
		if found == number && kind == protowire.BytesType {
			value, m := protowire.ConsumeBytes(message)
			if m < 0 {
				return nil
			}
			return value
		}
		if n = protowire.ConsumeFieldValue(found, kind, message); n < 0 {
			return nil
		}
		message = message[n:]
	}
	return nil
}

// tokenOf takes the first JWT-SVID from a response: its ID and token, or nil.
func tokenOf(message []byte) (id, token []byte) {
	svid := fieldOf(message, 1)
	return fieldOf(svid, 1), fieldOf(svid, 2)
}

func isToken(token []byte) error {
	if len(token) < 100 || bytes.Count(token, []byte{'.'}) != 2 {
		return wrongAnswer("a response without JWT-SVID")
	}
	return nil
}

// isX509 is the cheap check of a FetchX509SVID response: ID, certificate, key and bundle are there.
func isX509(message []byte) error {
	svid := fieldOf(message, 1)
	for number := protowire.Number(1); number <= 4; number++ {
		if len(fieldOf(svid, number)) == 0 {
			return wrongAnswer("a response without SVID, key or bundle")
		}
	}
	return nil
}

func decodeX509(message []byte) (*workload.X509SVIDResponse, error) {
	response := &workload.X509SVIDResponse{}
	if err := proto.Unmarshal(message, response); err != nil {
		return nil, wrongAnswer("a response that does not decode: " + err.Error())
	}
	return response, hasSVID(response)
}

func checkAudience(token, audience string) error {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return wrongAnswer("a token that is no JWS")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return wrongAnswer("a token whose claims do not decode")
	}
	var one struct {
		Audience string `json:"aud"`
	}
	var many struct {
		Audience []string `json:"aud"`
	}
	if json.Unmarshal(payload, &many) == nil && slices.Equal(many.Audience, []string{audience}) {
		return nil
	}
	if json.Unmarshal(payload, &one) == nil && one.Audience == audience {
		return nil
	}
	return wrongAnswer(fmt.Sprintf("a token for another audience than %q", audience))
}
