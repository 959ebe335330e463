// `verify <roots.pem> <chain.pem>...`: what crypto/x509 says of each chain, one line `accept` or `refuse <why>` for each.
package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"runtime"
)

func read(path string) []*x509.Certificate {
	rest, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	var certificates []*x509.Certificate
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return certificates
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			panic(err)
		}
		certificates = append(certificates, certificate)
	}
}

func pool(certificates []*x509.Certificate) *x509.CertPool {
	all := x509.NewCertPool()
	for _, one := range certificates {
		all.AddCert(one)
	}
	return all
}

func main() {
	roots := pool(read(os.Args[1]))
	fmt.Println("Go crypto/x509", runtime.Version())
	for _, path := range os.Args[2:] {
		chain := read(path)
		options := x509.VerifyOptions{Roots: roots, Intermediates: pool(chain[1:])}
		if _, err := chain[0].Verify(options); err != nil {
			fmt.Println("refuse", err)
		} else {
			fmt.Println("accept")
		}
	}
}
