package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// serve answers every peer of its own trust domain with one line, the peer's SPIFFE ID.
func serve(ctx context.Context, arguments []string) error {
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	svid, err := source.GetX509SVID()
	if err != nil {
		return err
	}
	config := tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeMemberOf(svid.ID.TrustDomain()))
	listener, err := net.Listen("tcp", ":"+arguments[0])
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	print(object{"event": "serving", "id": svid.ID.String()})
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go answer(tls.Server(connection, config))
	}
}

func answer(connection *tls.Conn) {
	defer connection.Close()
	peer, err := handshake(connection)
	if err == nil {
		_, err = fmt.Fprintln(connection, peer)
	}
	if err != nil {
		print(object{"event": "rejected", "error": err.Error()})
		return
	}
	print(object{"event": "peer", "id": peer})
}

func dial(ctx context.Context, arguments []string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	id, err := spiffeid.FromString(arguments[1])
	if err != nil {
		return err
	}
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", arguments[0])
	if err != nil {
		return err
	}
	connection := tls.Client(raw, tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(id)))
	defer connection.Close()
	peer, err := handshake(connection)
	if err != nil {
		return err
	}
	seen, err := bufio.NewReader(connection).ReadString('\n')
	if err != nil {
		return err
	}
	print(object{"event": "dialled", "peer": peer, "seen": strings.TrimSpace(seen)})
	return nil
}

// handshake completes the TLS handshake and returns the peer's SPIFFE ID.
func handshake(connection *tls.Conn) (string, error) {
	if err := connection.SetDeadline(time.Now().Add(callTimeout)); err != nil {
		return "", err
	}
	if err := connection.Handshake(); err != nil {
		return "", err
	}
	id, err := x509svid.IDFromCert(connection.ConnectionState().PeerCertificates[0])
	return id.String(), err
}
