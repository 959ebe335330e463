// Mints leaves with Go's crypto/x509 as SPIRE does: a P-256 key and a certificate with the extensions of an X.509-SVID each.
// `mint SECONDS` prints leaves for each second of CPU. One thread: GOMAXPROCS is set to 1.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return value
}

func newKey() *ecdsa.PrivateKey {
	return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
}

// keyID is RFC 7093 §2 method 1, as Signet has it.
func keyID(key *ecdsa.PublicKey) []byte {
	point := must(key.ECDH()).Bytes()
	sum := sha256.Sum256(point)
	return sum[:20]
}

func newSerial() *big.Int {
	octets := make([]byte, 16)
	must(rand.Read(octets))
	octets[0] = octets[0]&0x3f | 0x40
	return new(big.Int).SetBytes(octets)
}

// cpu is what the process has taken of all CPUs, its garbage collector included.
func cpu() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return seconds(usage.Utime) + seconds(usage.Stime)
}

func main() {
	runtime.GOMAXPROCS(1)
	seconds := must(strconv.ParseFloat(os.Args[1], 64))
	now := time.Now()
	caKey := newKey()
	root := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{Organization: []string{"Signet"}},
		URIs:                  []*url.URL{must(url.Parse("spiffe://example.org"))},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(24 * time.Hour),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		SubjectKeyId:          keyID(&caKey.PublicKey),
	}
	ca := must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, root, root, &caKey.PublicKey, caKey))))
	id := must(url.Parse("spiffe://example.org/ns/default/sa/web"))
	mint := func() {
		key := newKey()
		begin := time.Now()
		leaf := &x509.Certificate{
			SerialNumber:          newSerial(),
			Subject:               pkix.Name{Organization: []string{"Signet"}},
			URIs:                  []*url.URL{id},
			NotBefore:             begin.Add(-time.Minute),
			NotAfter:              begin.Add(time.Hour),
			KeyUsage:              x509.KeyUsageDigitalSignature,
			ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			BasicConstraintsValid: true,
			SubjectKeyId:          keyID(&key.PublicKey),
		}
		must(x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey))
	}
	for range 500 {
		mint()
	}
	count := 0
	before := cpu()
	end := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	for time.Now().Before(end) {
		for range 50 {
			mint()
			count++
		}
	}
	fmt.Printf("%.0f\n", float64(count)/(cpu()-before))
}
