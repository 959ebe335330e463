#!/bin/sh
# Makes the CA of a trust domain, P-256, and puts it into the cluster as the Secret that the agents mount.
#
#   deploy/kubernetes/create-ca.sh TRUST-DOMAIN
#
# Needs openssl and kubectl. Never replaces a Secret: a second run says what is there and changes nothing. Whoever has the key can be
# every workload of the trust domain: it is in the Secret only, and nothing is left on this machine.
#
# Environment: NAMESPACE (signet-system), SECRET (signet-ca), DAYS (3650), KUBECTL (kubectl).
set -eu
namespace=${NAMESPACE:-signet-system}
secret=${SECRET:-signet-ca}
days=${DAYS:-3650}
kubectl=${KUBECTL:-kubectl}

die() { printf 'create-ca: %s\n' "$1" >&2; exit "${2:-1}"; }

[ $# = 1 ] || die 'usage: create-ca.sh TRUST-DOMAIN' 2
domain=$1
case $domain in
  '' | *[!a-z0-9._-]*) die "\"$domain\" is not a trust domain: lower case letters, digits, dots, dashes and underscores are allowed" 2 ;;
esac
[ ${#domain} -le 255 ] || die 'a trust domain has at most 255 characters' 2
for program in openssl "$kubectl"; do
  command -v "$program" >/dev/null || die "$program is needed and not on PATH"
done

uri_of() { openssl x509 -noout -ext subjectAltName 2>/dev/null | sed -n 's/^ *URI:\(spiffe:[^,]*\).*/\1/p'; }

# An unreachable cluster must not look like one without the Secret.
found=$("$kubectl" get secret "$secret" --namespace "$namespace" --ignore-not-found --output 'jsonpath={.metadata.name} {.data.tls\.crt}')
if [ -n "$found" ]; then
  there=$(printf '%s' "${found#* }" | openssl base64 -d -A 2>/dev/null | uri_of)
  if [ "$there" = "spiffe://$domain" ]; then
    echo "the Secret $namespace/$secret is there already, with a CA of $there; nothing changed"
    exit 0
  fi
  [ -n "$there" ] || there='something that names no trust domain'
  die "the Secret $namespace/$secret is there already, with a CA of $there; nothing changed"
fi

umask 077
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
trap 'exit 130' INT TERM
key=$directory/tls.key
certificate=$directory/tls.crt

# One CA may follow: that of a node. It signs what workloads show.
cat >"$directory/openssl.cnf" <<CNF
[req]
prompt = no
distinguished_name = name
x509_extensions = extensions
string_mask = utf8only
[name]
O = Signet
CN = $(printf '%.64s' "$domain")
[extensions]
basicConstraints = critical, CA:TRUE, pathlen:1
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
subjectAltName = URI:spiffe://$domain
CNF
openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out "$key"
openssl req -x509 -new -sha256 -days "$days" -key "$key" -config "$directory/openssl.cnf" -out "$certificate"

here=$(cd "$(dirname "$0")" && pwd)
if ! "$kubectl" get namespace "$namespace" >/dev/null 2>&1; then
  sed "s/name: signet-system/name: $namespace/" "$here/namespace.yaml" | "$kubectl" apply --filename -
fi
# `create` fails where another run was faster.
"$kubectl" create secret generic "$secret" --namespace "$namespace" --type kubernetes.io/tls \
  --from-file "tls.crt=$certificate" --from-file "tls.key=$key" --from-file "ca.crt=$certificate"
openssl x509 -in "$certificate" -noout -fingerprint -sha256 -enddate
