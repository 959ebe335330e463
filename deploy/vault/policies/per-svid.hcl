# Tier `per-svid`: each SVID is signed by the role. What may be in it is bound by the role, see setup.sh. Any issuer of the mount: when
# the default changes, the one before goes on, by its ID, until everybody has the new root.
path "@PKI_MOUNT@/issuer/+/sign/@ROLE@" {
  capabilities = ["update"]
}
path "@PKI_MOUNT@/sign/@ROLE@" {
  capabilities = ["update"]
}
