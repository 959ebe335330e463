# JWT-SVIDs signed by the transit engine. The hash is part of the path, so that only SHA-256 can be had; the form of the signature
# and the version of the key must be named, because Vault's defaults are ASN.1 and whatever is newest. Reading the key gives its
# public halves; nothing here exports it.
path "@TRANSIT_MOUNT@/sign/@TRANSIT_KEY@/sha2-256" {
  capabilities        = ["update"]
  required_parameters = ["marshaling_algorithm", "key_version"]
  allowed_parameters = {
    "input"                = []
    "batch_input"          = []
    "key_version"          = []
    "prehashed"            = []
    "marshaling_algorithm" = ["jws"]
  }
}
path "@TRANSIT_MOUNT@/keys/@TRANSIT_KEY@" {
  capabilities = ["read"]
}
