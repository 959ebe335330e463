package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// connection is one gRPC connection of its own; nothing is dialled before the first call.
type connection struct {
	*grpc.ClientConn
	workload.SpiffeWorkloadAPIClient
}

func connect(socket string) (*connection, error) {
	plain := grpc.WithTransportCredentials(insecure.NewCredentials())
	conn, err := grpc.NewClient("unix:"+socket, plain, grpc.WithDisableServiceConfig())
	if err != nil {
		return nil, err
	}
	return &connection{conn, workload.NewSpiffeWorkloadAPIClient(conn)}, nil
}

// warmUp is the first call on a connection.
type warmUp func(ctx context.Context, c *connection) error

// connectAll opens n connections and makes one call on each, so that the load finds them ready.
func connectAll(ctx context.Context, o *options, n int, warm warmUp) ([]*connection, error) {
	var all []*connection
	for range n {
		c, err := connect(o.socket)
		if err != nil {
			return all, err
		}
		all = append(all, c)
		call, cancel := context.WithTimeout(ctx, o.timeout)
		err = warm(call, c)
		cancel()
		if err != nil {
			return all, fmt.Errorf("before the load: %w", err)
		}
	}
	return all, nil
}

func closeAll(connections []*connection) {
	for _, c := range connections {
		c.Close()
	}
}

// withHeader adds the security header (SPIFFE Workload Endpoint §3).
func withHeader(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "workload.spiffe.io", "true")
}

// fetchOnce opens a connection, takes the first X509-SVID response and hands the connection back open.
func fetchOnce(ctx context.Context, socket string) (*connection, *workload.X509SVIDResponse, error) {
	c, err := connect(socket)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(withHeader(ctx))
	defer cancel()
	stream, err := c.FetchX509SVID(ctx, &workload.X509SVIDRequest{})
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	response, err := stream.Recv()
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	return c, response, nil
}

// hasSVID is the cheap check for each answer under load; checkSVID is the whole one.
func hasSVID(r *workload.X509SVIDResponse) error {
	if len(r.Svids) == 0 || len(r.Svids[0].X509Svid) == 0 || len(r.Svids[0].X509SvidKey) == 0 || len(r.Svids[0].Bundle) == 0 {
		return wrongAnswer("a response without SVID, key or bundle")
	}
	return nil
}

// checkSVID parses the default identity: one URI SAN that is the SPIFFE ID, a key that fits, a chain up to the bundle.
func checkSVID(r *workload.X509SVIDResponse, now time.Time) (*x509.Certificate, error) {
	if err := hasSVID(r); err != nil {
		return nil, err
	}
	svid := r.Svids[0]
	chain, err := x509.ParseCertificates(svid.X509Svid)
	if err != nil {
		return nil, wrongAnswer("the chain does not parse: " + err.Error())
	}
	leaf := chain[0]
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != svid.SpiffeId {
		return nil, wrongAnswer(fmt.Sprintf("the certificate names %v, the response %q", leaf.URIs, svid.SpiffeId))
	}
	if err := keyFits(leaf, svid.X509SvidKey); err != nil {
		return nil, err
	}
	roots, err := x509.ParseCertificates(svid.Bundle)
	if err != nil {
		return nil, wrongAnswer("the bundle does not parse: " + err.Error())
	}
	verify := x509.VerifyOptions{Roots: pool(roots), Intermediates: pool(chain[1:]), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := leaf.Verify(verify); err != nil {
		return nil, wrongAnswer("the chain does not lead to the bundle: " + err.Error())
	}
	return leaf, nil
}

func keyFits(leaf *x509.Certificate, der []byte) error {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return wrongAnswer("the key does not parse: " + err.Error())
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return wrongAnswer("the key cannot sign")
	}
	public, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil || !bytes.Equal(public, leaf.RawSubjectPublicKeyInfo) {
		return wrongAnswer("the key is not the certificate's")
	}
	return nil
}

func pool(certificates []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certificates {
		p.AddCert(c)
	}
	return p
}
