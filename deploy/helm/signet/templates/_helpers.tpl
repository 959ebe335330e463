{{- define "signet.labels" -}}
app.kubernetes.io/name: signet
app.kubernetes.io/part-of: signet
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "signet.selectorLabels" -}}
app.kubernetes.io/name: signet
app.kubernetes.io/component: agent
{{- end }}

{{- define "signet.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* "0.0.0.0:9464", "[::]:9464" */}}
{{- define "signet.telemetryAddress" -}}
{{- $host := .Values.telemetry.host -}}
{{- if contains ":" $host -}}[{{ $host }}]{{- else -}}{{ $host }}{{- end -}}:{{ .Values.telemetry.port }}
{{- end }}

{{/* The Leases that the agents may write. */}}
{{- define "signet.leases" -}}
{{- $names := list -}}
{{- if .Values.registration.status -}}{{- $names = append $names "signet-rule-status" -}}{{- end -}}
{{- if .Values.publishBundle.enabled -}}{{- $names = append $names "signet-bundle" -}}{{- end -}}
[{{ join ", " $names }}]
{{- end }}

{{/* Where the ConfigMap with the trust bundle is. */}}
{{- define "signet.bundleNamespace" -}}
{{- .Values.publishBundle.configMap.namespace | default .Release.Namespace -}}
{{- end }}

{{/* "owned" where the object in the cluster belongs to this release, "foreign" where it belongs to somebody else, else "" */}}
{{- define "signet.ownership" -}}
{{- with .object -}}
{{- $annotations := (.metadata).annotations | default dict -}}
{{- $own := and (eq (index $annotations "meta.helm.sh/release-name" | default "") $.release.Name) (eq (index $annotations "meta.helm.sh/release-namespace" | default "") $.release.Namespace) -}}
{{- ternary "owned" "foreign" $own -}}
{{- end -}}
{{- end }}

{{- define "signet.config" -}}
{{- $v := .Values -}}
{{- $trustDomain := required "trustDomain is required: the trust domain whose identities are handed out, e.g. --set trustDomain=prod.example.org" $v.trustDomain -}}
{{- $clusterName := required "clusterName is required: it tells the clusters of one trust domain apart, e.g. --set clusterName=prod-eu1" $v.clusterName -}}
{{- $kubernetes := dict "nodeName" "${NODE_NAME}" "source" $v.kubernetes.source -}}
{{- if eq $v.kubernetes.source "kubelet" -}}
{{- $_ := set $kubernetes "kubelet" (dict "host" "${NODE_IP}") -}}
{{- end -}}
{{- $files := dict "certificate" "/run/signet/ca/tls.crt" "key" "/run/signet/ca/tls.key" "roots" (list "/run/signet/ca/ca.crt") -}}
{{- $config := dict
  "trustDomain" $trustDomain
  "clusterName" $clusterName
  "clusterDomain" $v.clusterDomain
  "kubernetes" $kubernetes
  "attestation" (dict "kubernetes" (dict "enabled" true))
  "registration" $v.registration
  "authority" (dict "type" "files" "ttl" $v.authority.ttl "files" $files)
  "onSuperseded" "wait"
  "telemetry" (dict "address" (include "signet.telemetryAddress" .))
  "log" $v.log
-}}
{{- if $v.attestation.executables -}}{{- $_ := set $config.attestation "unix" (dict "path" true) -}}{{- end -}}
{{- if $v.entries -}}{{- $_ := set $config "entries" $v.entries -}}{{- end -}}
{{- if $v.audit.path -}}{{- $_ := set $config "audit" $v.audit -}}{{- end -}}
{{- if $v.publishBundle.enabled -}}
{{- $configMap := dict "namespace" (include "signet.bundleNamespace" .) "name" $v.publishBundle.configMap.name -}}
{{- $_ := set $config "trust" (dict "publish" (dict "configMap" $configMap "clusterTrustBundle" $v.publishBundle.clusterTrustBundle)) -}}
{{- end -}}
{{- mustMergeOverwrite (mustDeepCopy $config) (mustDeepCopy $v.config) | toYaml -}}
{{- end }}
