#!/bin/sh
# Prepares Vault or OpenBao for the agents of a trust domain: the least policy that they need, the role that signs SVIDs (per-svid),
# the key that signs tokens (transit), and the role that they log in with. The PKI mount with its issuer, and the auth method, must
# be there: those are the operator's. A second run writes the same again.
#
#   TRUST_DOMAIN=example.org AUTH=kubernetes deploy/vault/setup.sh
#
# Needs the program `vault` (or VAULT=bao) with a token that may write all of this. Environment, beside VAULT_ADDR, VAULT_TOKEN,
# VAULT_CACERT and VAULT_NAMESPACE of that program:
#
#   TRUST_DOMAIN      the trust domain
#   TIER              intermediate (default) | per-svid
#   NAME_CONSTRAINT   none (default) | uri: node CAs without the constraint to the trust domain are refused to everybody (Vault 1.19)
#   PKI_MOUNT ISSUER  pki, default
#   ROLE              signet: the PKI role of per-svid
#   MAX_TTL           24h: the longest SVID of per-svid
#   ALLOWED_DOMAINS   DNS names in SVIDs, separated by commas, with * for any part; default none
#   JWT               node (default) | transit
#   TRANSIT_MOUNT     transit
#   TRANSIT_KEY       signet-jwt
#   POLICY            signet
#   AUTH              none (default) | kubernetes | jwt | approle | cert
#   AUTH_MOUNT        where the auth method is; default its name
#   AUTH_ROLE         signet
#   TOKEN_TTL TOKEN_MAX_TTL       1h, 24h
#   AUDIENCE          vault: of the token of the service account (kubernetes, jwt)
#   NAMESPACE SERVICE_ACCOUNT     signet-system, signet (kubernetes)
#   SUBJECT           system:serviceaccount:<NAMESPACE>:<SERVICE_ACCOUNT> (jwt)
#   CLIENT_CA CLIENT_NAMES        PEM file with the CA of client certificates, and their DNS names (cert)
set -eu
: "${TRUST_DOMAIN:?set TRUST_DOMAIN}"
: "${TIER:=intermediate}" "${NAME_CONSTRAINT:=none}" "${PKI_MOUNT:=pki}" "${ISSUER:=default}" "${ROLE:=signet}" "${MAX_TTL:=24h}"
: "${ALLOWED_DOMAINS:=}" "${JWT:=node}" "${TRANSIT_MOUNT:=transit}" "${TRANSIT_KEY:=signet-jwt}" "${POLICY:=signet}" "${AUTH:=none}"
: "${AUTH_MOUNT:=$AUTH}" "${AUTH_ROLE:=signet}" "${TOKEN_TTL:=1h}" "${TOKEN_MAX_TTL:=24h}" "${AUDIENCE:=vault}"
: "${NAMESPACE:=signet-system}" "${SERVICE_ACCOUNT:=signet}" "${VAULT:=vault}"
: "${SUBJECT:=system:serviceaccount:$NAMESPACE:$SERVICE_ACCOUNT}"
here=$(cd "$(dirname "$0")" && pwd)

die() { printf 'setup: %s\n' "$1" >&2; exit "${2:-1}"; }

case $TRUST_DOMAIN in
  *[!a-z0-9._-]*) die "\"$TRUST_DOMAIN\" is not a trust domain: lower case letters, digits, dots, dashes and underscores are allowed" 2 ;;
esac
for value in "$PKI_MOUNT" "$ISSUER" "$ROLE" "$TRANSIT_MOUNT" "$TRANSIT_KEY"; do
  case $value in
    *[!A-Za-z0-9._/-]*) die "\"$value\" cannot be a part of a path here: letters, digits and ._/- are allowed" 2 ;;
  esac
done

required='"csr", "ttl", "max_path_length", "uri_sans"'
case $NAME_CONSTRAINT in
  none) ;;
  uri) required="$required, \"permitted_uri_domains\"" ;;
  *) die "NAME_CONSTRAINT is \"$NAME_CONSTRAINT\"; none and uri are allowed" 2 ;;
esac

filled() {
  sed -e '/^#/d' -e "s|@TRUST_DOMAIN@|$TRUST_DOMAIN|g" -e "s|@PKI_MOUNT@|$PKI_MOUNT|g" -e "s|@ISSUER@|$ISSUER|g" -e "s|@ROLE@|$ROLE|g" \
    -e "s|@TRANSIT_MOUNT@|$TRANSIT_MOUNT|g" -e "s|@TRANSIT_KEY@|$TRANSIT_KEY|g" -e "s|@REQUIRED@|$required|g" "$here/policies/$1.hcl"
}

parts=token
case $TIER in
  intermediate) parts="$parts intermediate" ;;
  per-svid)
    parts="$parts per-svid"
    # What a leaf of the SPIFFE profile needs (X509-SVID 3, 4): one URI of the trust domain, CA:FALSE, digitalSignature, both sides of
    # TLS, and a subject, without which some verifiers want critical names. no_store: Vault would keep each certificate for ever.
    "$VAULT" write "$PKI_MOUNT/roles/$ROLE" \
      issuer_ref="$ISSUER" allowed_uri_sans="spiffe://$TRUST_DOMAIN/*" use_csr_sans=true use_csr_common_name=false require_cn=false \
      allow_any_name=false allow_ip_sans=false allow_localhost=false allow_wildcard_certificates=false cn_validations=disabled \
      allowed_domains="$ALLOWED_DOMAINS" allow_bare_domains=true allow_glob_domains=true \
      key_type=any key_usage=DigitalSignature server_flag=true client_flag=true code_signing_flag=false email_protection_flag=false \
      basic_constraints_valid_for_non_ca=true organization=Signet not_before_duration=30s ttl=1h max_ttl="$MAX_TTL" no_store=true
    ;;
  *) die "TIER is \"$TIER\"; intermediate and per-svid are allowed" 2 ;;
esac
case $JWT in
  node) ;;
  transit)
    parts="$parts transit"
    "$VAULT" write "$TRANSIT_MOUNT/keys/$TRANSIT_KEY" type=ecdsa-p256 exportable=false
    ;;
  *) die "JWT is \"$JWT\"; node and transit are allowed" 2 ;;
esac

for part in $parts; do filled "$part"; done | "$VAULT" policy write "$POLICY" -

# token_no_default_policy: what is in `default` is more than the agents need.
role() {
  path=$1
  shift
  "$VAULT" write "auth/$AUTH_MOUNT/$path" token_policies="$POLICY" token_no_default_policy=true token_ttl="$TOKEN_TTL" token_max_ttl="$TOKEN_MAX_TTL" "$@"
}
case $AUTH in
  none) ;;
  kubernetes)
    role "role/$AUTH_ROLE" bound_service_account_names="$SERVICE_ACCOUNT" bound_service_account_namespaces="$NAMESPACE" audience="$AUDIENCE"
    ;;
  jwt)
    role "role/$AUTH_ROLE" role_type=jwt user_claim=sub bound_audiences="$AUDIENCE" bound_subject="$SUBJECT"
    ;;
  approle)
    role "role/$AUTH_ROLE" bind_secret_id=true secret_id_num_uses=0
    ;;
  cert)
    role "certs/$AUTH_ROLE" certificate=@"${CLIENT_CA:?set CLIENT_CA}" allowed_dns_sans="${CLIENT_NAMES:?set CLIENT_NAMES}"
    ;;
  *) die "AUTH is \"$AUTH\"; none, kubernetes, jwt, approle and cert are allowed" 2 ;;
esac
