//go:build tools

// Package tools pins the spire-agent command line in this module's go.mod and go.sum.
package tools

import _ "github.com/spiffe/spire/cmd/spire-agent"
