{{- define "intake.env" -}}
{{- $secrets := "/etc/unrestrict-worker" }}
- name: GOMEMLIMIT
  value: {{ include "worker.goMemLimit" .Values.intake.resources.limits.memory }}
- name: NATS_URL
  value: {{ .Values.nats.url | quote }}
{{- include "worker.natsEnv" .Values.intake.nats }}
{{- with .Values.intake }}
- name: WORKER_PROVISION
  value: {{ .provision | quote }}
- name: WORKER_INTAKE_ADDR
  value: 0.0.0.0:{{ .port }}
- name: WORKER_INTAKE_TLS_CERT
  value: {{ $secrets }}/intake-tls/tls.crt
- name: WORKER_INTAKE_TLS_KEY
  value: {{ $secrets }}/intake-tls/tls.key
{{- if .tls.clientCA }}
- name: WORKER_INTAKE_CLIENT_CA
  value: {{ $secrets }}/intake-tls/ca.crt
{{- end }}
- name: WORKER_INTAKE_CLIENTS_FILE
  value: {{ $secrets }}/clients/{{ .clients.key }}
{{- with .url | default (ternary (printf "https://%s" .ingress.host) "" .ingress.enabled) }}
- name: WORKER_INTAKE_URL
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- with .Values.acceptance }}
{{- if .existingConfigMap }}
- name: WORKER_TRUSTED_SIGNERS_FILE
  value: {{ $secrets }}/acceptance/{{ .signersKey }}
{{- end }}
{{- end }}
{{- with .Values.intake.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What is mounted: name, and secret or config map. None of it is a Defender credential. */}}
{{- define "intake.mounted" -}}
{{- with .Values.intake }}
intake-tls: {secret: {{ .tls.existingSecret }}}
clients: {secret: {{ .clients.existingSecret }}}
{{- if ne .nats.auth "none" }}
nats: {secret: {{ .nats.existingSecret }}}
{{- end }}
{{- if .nats.tls.existingSecret }}
nats-tls: {secret: {{ .nats.tls.existingSecret }}}
{{- end }}
{{- end }}
{{- if .Values.acceptance.existingConfigMap }}
acceptance: {configMap: {{ .Values.acceptance.existingConfigMap }}}
{{- end }}
{{- end -}}
