# Tier `intermediate`: a node may have a CA of its own signed, and nothing else. The values are bound here, so that a stolen token
# buys no longer path and no other trust domain.
#
# Vault compares these values as texts or booleans, never as numbers. `ttl` cannot be bound: the mount's max_lease_ttl is its only
# limit, which is why nodes should have a mount of their own. `use_csr_values` stays false: with it Vault copies the extensions of
# the request over those that are bound here, the name constraint included.
path "@PKI_MOUNT@/issuer/@ISSUER@/sign-intermediate" {
  capabilities        = ["update"]
  required_parameters = [@REQUIRED@]
  allowed_parameters = {
    "csr"                   = []
    "format"                = ["pem"]
    "ttl"                   = []
    "max_path_length"       = ["0"]
    "uri_sans"              = ["spiffe://@TRUST_DOMAIN@"]
    "permitted_uri_domains" = ["@TRUST_DOMAIN@"]
    "organization"          = ["Signet"]
    "ou"                    = ["Node CA"]
    "serial_number"         = []
    "exclude_cn_from_sans"  = [true]
    "use_csr_values"        = [false]
    "not_before_duration"   = ["300s"]
  }
}
