package main

import (
	"context"

	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// token fetches a JWT-SVID and prints it: whoever reads the pod's log has it.
func token(ctx context.Context, arguments []string) error {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	svid, err := workloadapi.FetchJWTSVID(call, jwtsvid.Params{Audience: arguments[0]})
	if err != nil {
		return err
	}
	print(object{"event": "token", "id": svid.ID.String(), "token": svid.Marshal()})
	return nil
}

// verify has a token verified by the agent, and by go-spiffe with the bundle of the agent.
func verify(ctx context.Context, arguments []string) error {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	audience, given := arguments[0], arguments[1]
	remote, err := workloadapi.ValidateJWTSVID(call, given, audience)
	if err != nil {
		return err
	}
	source, err := workloadapi.NewJWTSource(call)
	if err != nil {
		return err
	}
	defer source.Close()
	local, err := jwtsvid.ParseAndValidate(given, source, []string{audience})
	if err != nil {
		return err
	}
	print(object{"event": "verified", "remote": remote.ID.String(), "local": local.ID.String()})
	return nil
}
