#!/bin/sh
# Shows Signet at work on this machine, in a temporary directory: an agent with a CA of its own, identities for the current user,
# one rotation, a clean end. Nothing stays behind.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
signet=$root/deploy/signet
dir=$(mktemp -d "${TMPDIR:-/tmp}/signet-demo.XXXXXX")
agent=''

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$(printf '\033[1m') dim=$(printf '\033[2m') plain=$(printf '\033[0m'); else bold='' dim='' plain=''; fi
step() { printf '\n%s%s%s\n' "$bold" "$1" "$plain"; }
show() { printf '%s$ signet %s%s\n' "$dim" "$*" "$plain"; "$signet" "$@" | sed 's/^/  /'; }

leave() {
  code=$?
  if [ -n "$agent" ]; then
    kill "$agent" 2>/dev/null || true
    wait "$agent" 2>/dev/null || true
  fi
  if [ "$code" != 0 ] && [ -f "$dir/agent.log" ]; then
    echo "the agent's log:" >&2
    cat "$dir/agent.log" >&2
  fi
  rm -rf "$dir"
  exit "$code"
}
trap leave EXIT
trap 'exit 130' INT TERM

cat >"$dir/signet.yaml" <<YAML
trustDomain: example.org
socketPath: $dir/run/api.sock
dataDir: $dir/data
privateDir: $dir/private
x509: { ttl: 12s }            # so that a rotation can be watched; the default is 1h
entries:
  - id: spiffe://example.org/user/$(id -un)
    selectors: ["unix:uid:$(id -u)"]
    dnsNames: [demo]
YAML

step "1. The configuration: who owns which identity"
sed 's/^/  /' "$dir/signet.yaml"
show config check "$dir/signet.yaml"

step "2. The agent starts, with a CA of its own"
"$signet" agent --config "$dir/signet.yaml" 2>"$dir/agent.log" &
agent=$!
tries=0
until "$signet" healthcheck --socket "$dir/run/api.sock" >/dev/null 2>&1; do
  tries=$((tries + 1))
  if [ "$tries" -gt 50 ] || ! kill -0 "$agent" 2>/dev/null; then
    echo "the agent did not become ready" >&2
    exit 1
  fi
  sleep 0.1
done
export SPIFFE_ENDPOINT_SOCKET="unix://$dir/run/api.sock"
echo "  SPIFFE_ENDPOINT_SOCKET=$SPIFFE_ENDPOINT_SOCKET"

step "3. An X.509-SVID, for mutual TLS: the kernel says who asks, nobody handles a secret"
show fetch x509

step "4. A JWT-SVID, for everything that is not TLS"
show fetch jwt --audience spiffe://example.org/reports

step "5. A rotation: this stream gets the next certificate before the first one ends (a few seconds)"
printf '%s$ signet watch --count 2 --output json%s\n' "$dim" "$plain"
"$signet" watch --count 2 --timeout 30s --output json |
  sed -n 's/.*"svids":\[{"spiffe_id":"\([^"]*\)"[^}]*"serial":"\([^"]*\)"[^}]*"not_after":"\([^"]*\)".*/  \1  serial \2  until \3/p'

step "6. The agent stops"
kill "$agent"
wait "$agent" && echo "  exit code 0, no socket left: $(ls "$dir/run" | wc -l) files in the socket's directory"
agent=''
printf '\n%sNext:%s make test, make run, and README.md\n' "$bold" "$plain"
