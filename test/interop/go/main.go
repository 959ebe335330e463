// Command interop drives go-spiffe against a Workload API; the contract is in ../README.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

const (
	callTimeout   = 30 * time.Second
	rotateTimeout = 90 * time.Second
	otherAudience = "another-audience"
)

type object map[string]any

func main() {
	if err := run(os.Args[1:]); err != nil {
		print(object{"error": err.Error()})
		os.Exit(1)
	}
}

func run(args []string) error {
	timeout := callTimeout
	if len(args) > 0 && args[0] == "rotate" {
		timeout = rotateTimeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	switch {
	case len(args) == 1 && args[0] == "x509":
		return x509(ctx)
	case len(args) == 1 && args[0] == "rotate":
		return rotate(ctx)
	case len(args) == 2 && args[0] == "jwt":
		return jwt(ctx, args[1])
	case len(args) == 1 && args[0] == "bundles":
		return bundles(ctx)
	case len(args) == 1 && args[0] == "serve":
		return serve(ctx)
	case len(args) == 3 && args[0] == "dial":
		return dial(ctx, args[1], args[2])
	}
	return errors.New("usage: x509 | rotate | jwt AUD | bundles | serve | dial PORT EXPECTED_ID")
}

func print(line object) {
	if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

func x509(ctx context.Context) error {
	x509Context, err := workloadapi.FetchX509Context(ctx)
	if err != nil {
		return err
	}
	svid := x509Context.DefaultSVID()
	bundle, err := x509Context.Bundles.GetX509BundleForTrustDomain(svid.ID.TrustDomain())
	if err != nil {
		return err
	}
	print(object{
		"id":       svid.ID.String(),
		"hint":     svid.Hint,
		"chain":    len(svid.Certificates),
		"bundle":   len(bundle.X509Authorities()),
		"notAfter": svid.Certificates[0].NotAfter.Unix(),
	})
	return nil
}

func rotate(ctx context.Context) error {
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	serials := map[string]bool{}
	for {
		svid, err := source.GetX509SVID()
		if err != nil {
			return err
		}
		serial := svid.Certificates[0].SerialNumber.Text(16)
		print(object{"serial": serial})
		if serials[serial] = true; len(serials) == 2 {
			return nil
		}
		if err := source.WaitUntilUpdated(ctx); err != nil {
			return err
		}
	}
}

func jwt(ctx context.Context, audience string) error {
	source, err := workloadapi.NewJWTSource(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	fetched, err := source.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience})
	if err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	token := fetched.Marshal()
	local, err := jwtsvid.ParseAndValidate(token, source, []string{audience})
	if err != nil {
		return fmt.Errorf("local validation: %w", err)
	}
	remote, err := workloadapi.ValidateJWTSVID(ctx, token, audience)
	if err != nil {
		return fmt.Errorf("remote validation: %w", err)
	}
	_, localRefusal := jwtsvid.ParseAndValidate(token, source, []string{otherAudience})
	_, remoteRefusal := workloadapi.ValidateJWTSVID(ctx, token, otherAudience)
	print(object{
		"local":   object{"sub": local.ID.String(), "aud": local.Audience},
		"remote":  object{"sub": remote.ID.String(), "aud": remote.Audience},
		"refused": object{"local": textOf(localRefusal), "remote": textOf(remoteRefusal)},
	})
	return nil
}

func bundles(ctx context.Context) error {
	x509Bundles, err := workloadapi.FetchX509Bundles(ctx)
	if err != nil {
		return err
	}
	jwtBundles, err := workloadapi.FetchJWTBundles(ctx)
	if err != nil {
		return err
	}
	authorities, keys := map[string]int{}, map[string][]string{}
	for _, bundle := range x509Bundles.Bundles() {
		authorities[bundle.TrustDomain().Name()] = len(bundle.X509Authorities())
	}
	for _, bundle := range jwtBundles.Bundles() {
		name := bundle.TrustDomain().Name()
		keys[name] = []string{}
		for id := range bundle.JWTAuthorities() {
			keys[name] = append(keys[name], id)
		}
	}
	print(object{"x509": authorities, "jwt": keys})
	return nil
}

// textOf is empty for a call that was not refused.
func textOf(refusal error) string {
	if refusal == nil {
		return ""
	}
	return refusal.Error()
}

func portOf(address net.Addr) int {
	return address.(*net.TCPAddr).Port
}
