{
  "subject": {
    "organization": "Signet",
    "organizationalUnit": "Node CA",
    "serialNumber": {{ randAlphaNum 32 | toJson }}
  },
  "uris": [{{ printf "spiffe://%s" .trustDomain | toJson }}],
  "keyUsage": ["certSign", "crlSign", "digitalSignature"],
  "basicConstraints": {"isCA": true, "maxPathLen": 0}
  {{- if eq .nameConstraint "uri" }},
  "nameConstraints": {"critical": true, "permittedURIDomains": [{{ .trustDomain | toJson }}]}
  {{- end }}
}
