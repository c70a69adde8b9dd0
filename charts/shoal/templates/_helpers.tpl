{{/*
Names are fixed: there is one Shoal in a cluster, whose agents have the nodes' ports and the runtimes' hosts.toml. A second release
is refused because these objects belong to the first.
*/}}

{{/* What selects pods: kubectl-swarm looks for these, too. Takes (list . "component"). */}}
{{- define "shoal.selector" -}}
app.kubernetes.io/name: shoal
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* All labels of an object. Takes (list . "component"). */}}
{{- define "shoal.labels" -}}
{{- $ := index . 0 -}}
{{ include "shoal.selector" . }}
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $.Release.Service }}
app.kubernetes.io/part-of: shoal
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" }}
{{- with $.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* An image's reference. Takes (list . .Values.operator.image). */}}
{{- define "shoal.image" -}}
{{- $ := index . 0 -}}
{{- $image := index . 1 -}}
{{- $registry := required "image.registry is empty: push what `cargo xtask images` writes to a registry that the nodes reach, and name it: --set image.registry=registry.example.com/shoal" $.Values.image.registry -}}
{{- $reference := printf "%s/%s" (trimSuffix "/" $registry) $image.name -}}
{{- if $image.digest -}}
{{ $reference }}@{{ $image.digest }}
{{- else -}}
{{ $reference }}:{{ $.Values.image.tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* What every container may do: nothing. */}}
{{- define "shoal.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "shoal.flags" -}}
- --log-level={{ .Values.log.level }}
- --log-format={{ .Values.log.format }}
{{- with .Values.otlpEndpoint }}
- --otlp-endpoint={{ . }}
{{- end }}
{{- with .Values.proxy.https }}
- --https-proxy={{ . }}
{{- end }}
{{- with .Values.proxy.http }}
- --http-proxy={{ . }}
{{- end }}
{{- with .Values.proxy.none }}
- --no-proxy={{ . }}
{{- end }}
{{- end }}

{{- define "shoal.trackers" -}}
{{- $service := printf "https://shoal-tracker.%s.svc:%v" .Release.Namespace .Values.operator.trackerPort -}}
{{- .Values.agent.trackers | default (list $service) | join "," -}}
{{- end }}

{{/* Where a node's mirror is. */}}
{{- define "shoal.mirror" -}}
127.0.0.1:{{ .Values.agent.mirrorPort }}
{{- end }}
