# The token may be kept alive. The role of the login leaves the policy `default` out.
path "auth/token/renew-self" {
  capabilities = ["update"]
}
