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

func serve(ctx context.Context) error {
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	svid, err := source.GetX509SVID()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer listener.Close()
	deadline, _ := ctx.Deadline()
	if err := listener.(*net.TCPListener).SetDeadline(deadline); err != nil {
		return err
	}
	print(object{"port": portOf(listener.Addr())})
	config := tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeMemberOf(svid.ID.TrustDomain()))
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		peer, err := answer(tls.Server(connection, config), deadline)
		if err == nil {
			print(object{"peer": peer})
			return nil
		}
		print(object{"refused": err.Error()})
	}
}

func answer(connection *tls.Conn, deadline time.Time) (string, error) {
	defer connection.Close()
	if err := connection.SetDeadline(deadline); err != nil {
		return "", err
	}
	peer, err := handshake(connection)
	if err != nil {
		return "", err
	}
	_, err = fmt.Fprintln(connection, peer)
	return peer, err
}

func dial(ctx context.Context, port, expected string) error {
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	id, err := spiffeid.FromString(expected)
	if err != nil {
		return err
	}
	raw, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	connection := tls.Client(raw, tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(id)))
	defer connection.Close()
	deadline, _ := ctx.Deadline()
	if err := connection.SetDeadline(deadline); err != nil {
		return err
	}
	peer, err := handshake(connection)
	if err != nil {
		return err
	}
	seen, err := bufio.NewReader(connection).ReadString('\n')
	if err != nil {
		return err
	}
	print(object{"peer": peer, "seen": strings.TrimSpace(seen)})
	return nil
}

// handshake completes the TLS handshake and returns the peer's SPIFFE ID.
func handshake(connection *tls.Conn) (string, error) {
	if err := connection.Handshake(); err != nil {
		return "", err
	}
	id, err := x509svid.IDFromCert(connection.ConnectionState().PeerCertificates[0])
	return id.String(), err
}
