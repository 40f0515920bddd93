{{/* Names and labels. Selectors hold nothing that an upgrade changes. */}}
{{- define "kitepush.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "kitepush.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "kitepush.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "kitepush.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* (list $ "server") → the labels that select a component's pods */}}
{{- define "kitepush.selector" -}}
app.kubernetes.io/name: {{ include "kitepush.name" (first .) }}
app.kubernetes.io/instance: {{ (first .).Release.Name | quote }}
app.kubernetes.io/component: {{ last . }}
{{- end }}

{{- define "kitepush.labels" -}}
{{ include "kitepush.selector" . }}
app.kubernetes.io/version: {{ (first .).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (first .).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (first .).Chart.Name (first .).Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "kitepush.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "kitepush.fullname" .) .Values.serviceAccount.name }}{{ else }}{{ default "default" .Values.serviceAccount.name }}{{ end }}
{{- end }}

{{- define "kitepush.webhookSecret" -}}
{{- if .Values.webhook.existingSecret }}{{ .Values.webhook.existingSecret }}
{{- else if .Values.webhook.token }}{{ include "kitepush.fullname" . }}-webhook
{{- else }}{{ fail "\n\nNo webhook secret. Put the token that Buildkite shows into a secret and name it:\n  kubectl create secret generic buildkite-webhook --from-literal=token=…\n  helm … --set webhook.existingSecret=buildkite-webhook\n" }}
{{- end }}
{{- end }}

{{- define "kitepush.gatewaySecret" -}}
{{- default (printf "%s-pushgateway" (include "kitepush.fullname" .)) .Values.pushgateway.auth.existingSecret }}
{{- end }}

{{/* An image reference; the digest wins over the tag. */}}
{{- define "kitepush.image" -}}
{{- if .image.digest }}{{ .image.repository }}@{{ .image.digest }}{{ else }}{{ .image.repository }}:{{ default .default .image.tag }}{{ end }}
{{- end }}

{{/* A duration of kitepush (500ms, 15s, 5m, 24h) in whole seconds, rounded up */}}
{{- define "kitepush.seconds" -}}
{{- $n := regexFind "^[0-9]+" . | int -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- if eq $unit "ms" }}{{ div (add $n 999) 1000 }}
{{- else if eq $unit "s" }}{{ $n }}
{{- else if eq $unit "m" }}{{ mul $n 60 }}
{{- else if eq $unit "h" }}{{ mul $n 3600 }}
{{- else }}{{ fail (printf "%q is not a duration such as 500ms, 15s, 5m or 24h" .) }}
{{- end }}
{{- end }}

{{/* kitepush's configuration: what the chart knows, then what the user says */}}
{{- define "kitepush.config" -}}
{{- $name := include "kitepush.fullname" . -}}
{{- $user := deepCopy .Values.config -}}
{{- $server := dict "listen" "0.0.0.0:8080" -}}
{{- if .Values.webhook.tls.existingSecret }}
{{- $tls := dict "cert_file" "/etc/kitepush/tls/tls.crt" "key_file" "/etc/kitepush/tls/tls.key" -}}
{{- if .Values.webhook.tls.clientCA }}{{ $_ := set $tls "client_ca_file" "/etc/kitepush/tls/ca.crt" }}{{ end -}}
{{- $_ := set $server "tls" $tls -}}
{{- end }}
{{- $admin := dict "listen" "0.0.0.0:9860" -}}
{{- if .Values.access.enabled }}{{ $_ := set $admin "isolated" true }}
{{- else if not (or (dig "admin" "auth" nil $user) (dig "admin" "isolated" false $user)) }}
{{- fail "\n\naccess.enabled=false leaves the admin listener open to the whole cluster. Set config.admin.auth, or config.admin.isolated=true if a policy of your own guards it.\n" }}
{{- end }}
{{- if .Values.admin.tls.existingSecret }}
{{- $_ := set $admin "tls" (dict "cert_file" "/etc/kitepush/admin-tls/tls.crt" "key_file" "/etc/kitepush/admin-tls/tls.key") -}}
{{- end }}
{{- $push := dict -}}
{{- if .Values.pushgateway.enabled }}
{{- if dig "push" "url" "" $user }}{{ fail "\n\npushgateway.enabled and config.push.url exclude each other: kitepush pushes to one gateway.\n" }}{{ end -}}
{{- $_ := set $push "url" (printf "http://%s-pushgateway.%s.svc:9091" $name .Release.Namespace) -}}
{{- $_ := set $push "http" (dict "basic_auth" (dict "username_file" "/etc/kitepush/gateway/username" "password_file" "/etc/kitepush/gateway/password")) -}}
{{- else if .Values.push.serviceAccountToken.audience }}
{{- $_ := set $push "http" (dict "authorization" (dict "type" "Bearer" "credentials_file" "/var/run/secrets/kitepush/token")) -}}
{{- end }}
{{- $state := dict -}}
{{- if eq .Values.kind "StatefulSet" }}{{ $_ := set $state "path" "/var/lib/kitepush/state.db" }}
{{- else if or .Values.pushgateway.enabled (dig "push" "url" "" $user) }}{{ $_ := set $push "instance" $name }}{{ end -}}
{{- if and .Values.serviceMonitor.enabled (not (dig "push" "scrape_interval" "" $user)) (or .Values.pushgateway.enabled (dig "push" "url" "" $user)) }}
{{- $_ := set $push "scrape_interval" .Values.serviceMonitor.interval }}{{ end -}}
{{- $managed := dict "server" $server "admin" $admin "auth" (dict "secret_files" (list "/etc/kitepush/webhook")) -}}
{{- if $push }}{{ $_ := set $managed "push" $push }}{{ end -}}
{{- if $state }}{{ $_ := set $managed "state" $state }}{{ end -}}
{{- toYaml (mustMergeOverwrite $managed $user) }}
{{- end }}

{{/* pod settings that the restricted Pod Security Standard asks for */}}
{{- define "kitepush.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "kitepush.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* pod placement, shared by kitepush and the Pushgateway */}}
{{- define "kitepush.placement" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* {namespace, podLabels} → a NetworkPolicy peer */}}
{{- define "kitepush.peer" -}}
namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .namespace }}}}
{{- with .podLabels }}
podSelector:
  matchLabels: {{- toYaml . | nindent 4 }}
{{- end }}
{{- end }}

{{/* "severity=\"critical\"" → {name, matchType, value} */}}
{{- define "kitepush.matchers" -}}
{{- range . }}
- name: {{ regexFind "^[a-z_]+" . }}
  matchType: {{ regexFind "[!=~]+" . | quote }}
  value: {{ regexFind "\".*\"$" . }}
{{- end }}
{{- end }}

{{/* a route of alertmanager.yml in the words of the AlertmanagerConfig */}}
{{- define "kitepush.route" -}}
receiver: {{ .receiver }}
{{- with .matchers }}
matchers: {{- include "kitepush.matchers" . | nindent 2 }}
{{- end }}
{{- with .group_by }}
groupBy: {{- toYaml . | nindent 2 }}
{{- end }}
{{- range $key, $field := dict "group_wait" "groupWait" "group_interval" "groupInterval" "repeat_interval" "repeatInterval" "continue" "continue" }}
{{- if hasKey $ $key }}
{{ $field }}: {{ get $ $key }}
{{- end }}
{{- end }}
{{- with .routes }}
routes:
{{- range . }}
  - {{- include "kitepush.route" . | nindent 4 }}
{{- end }}
{{- end }}
{{- end }}
