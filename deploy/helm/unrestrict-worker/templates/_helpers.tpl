{{- define "worker.name" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "worker.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Labels of the worker pods of a release, which the pod of the check does not have. */}}
{{- define "worker.workers" -}}
{{ include "worker.selector" . }}
app.kubernetes.io/component: worker
{{- end -}}

{{/* Labels of the intake pods, which hold none of the workers' credentials. */}}
{{- define "worker.intakes" -}}
{{ include "worker.selector" . }}
app.kubernetes.io/component: intake
{{- end -}}

{{- define "worker.labels" -}}
{{ include "worker.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "worker.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "worker.name" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- define "worker.image" -}}
{{- with .Values.image -}}
{{- .repository -}}{{- if .digest }}@{{ .digest }}{{- else }}:{{ .tag | default $.Chart.AppVersion }}{{- end -}}
{{- end -}}
{{- end -}}

{{/* GOMEMLIMIT: nine tenths of a limit in MiB, so that the collector works harder before the kernel kills. */}}
{{- define "worker.goMemLimit" -}}
{{- $limit := . -}}
{{- $mebi := ternary (mul 1024 (trimSuffix "Gi" $limit | int)) (trimSuffix "Mi" $limit | int) (hasSuffix "Gi" $limit) -}}
{{- printf "%dMiB" (div (mul $mebi 9) 10) -}}
{{- end -}}

{{/* Checks across values, which a schema can't report clearly. */}}
{{- define "worker.check" -}}
{{- include "worker.checkNats" (dict "at" "nats" "nats" .Values.nats) -}}
{{- if and (has .Values.defender.auth (list "client-secret" "client-certificate" "token-file")) (not .Values.defender.existingSecret) -}}
{{- fail (printf "defender.auth is %s: name the secret with the key %s in defender.existingSecret" .Values.defender.auth .Values.defender.auth) -}}
{{- end -}}
{{- with .Values.intake -}}
{{- if .enabled -}}
{{- include "worker.checkNats" (dict "at" "intake.nats" "nats" .nats) -}}
{{- if not .tls.existingSecret -}}
{{- fail "intake.enabled: name the secret with its certificate, tls.crt and tls.key, in intake.tls.existingSecret" -}}
{{- end -}}
{{- if not .clients.existingSecret -}}
{{- fail "intake.enabled: name the secret with its clients file in intake.clients.existingSecret" -}}
{{- end -}}
{{- if and .ingress.enabled (not .ingress.host) -}}
{{- fail "intake.ingress.enabled: name the host in intake.ingress.host" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.acceptance.policyKey (not .Values.acceptance.existingConfigMap) -}}
{{- fail "acceptance.policyKey needs acceptance.existingConfigMap, which has the signers too" -}}
{{- end -}}
{{- end -}}

{{/* The sign-in to NATS, from values of the form of .Values.nats. */}}
{{- define "worker.checkNats" -}}
{{- if and (ne .nats.auth "none") (not .nats.existingSecret) -}}
{{- fail (printf "%s.auth is %s: name the secret with its key %s in %s.existingSecret" .at .nats.auth (include "worker.natsKey" .nats) .at) -}}
{{- end -}}
{{- if and (eq .nats.auth "user") (not .nats.user) -}}
{{- fail (printf "%s.auth is user: name the user in %s.user" .at .at) -}}
{{- end -}}
{{- end -}}

{{- define "worker.natsKey" -}}
{{- ternary "password" .auth (eq .auth "user") -}}
{{- end -}}

{{- define "worker.natsEnv" }}
{{- $secrets := "/etc/unrestrict-worker" }}
{{- if eq .auth "user" }}
- name: NATS_USER
  value: {{ .user | quote }}
{{- end }}
{{- if ne .auth "none" }}
- name: {{ get (dict "creds" "NATS_CREDS" "nkey" "NATS_NKEY" "user" "NATS_PASSWORD_FILE" "token" "NATS_TOKEN_FILE") .auth }}
  value: {{ $secrets }}/nats/{{ include "worker.natsKey" . }}
{{- end }}
{{- if .tls.existingSecret }}
{{- if .tls.ca }}
- name: NATS_CA
  value: {{ $secrets }}/nats-tls/ca.crt
{{- end }}
{{- if .tls.client }}
- name: NATS_CERT
  value: {{ $secrets }}/nats-tls/tls.crt
- name: NATS_KEY
  value: {{ $secrets }}/nats-tls/tls.key
{{- end }}
{{- end }}
{{- end }}

{{/* The ports of nats.url, for network policies. */}}
{{- define "worker.natsPorts" -}}
{{- $ports := dict }}
{{- range splitList "," .Values.nats.url }}
{{- $url := urlParse (trim .) }}
{{- $_ := set $ports (regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default "4222") true }}
{{- end }}
{{- range keys $ports | sortAlpha }}
- port: {{ . }}
{{- end }}
{{- end -}}

{{- define "worker.env" -}}
- name: GOMEMLIMIT
  value: {{ include "worker.goMemLimit" .Values.resources.limits.memory }}
- name: NATS_URL
  value: {{ .Values.nats.url | quote }}
{{- include "worker.natsEnv" .Values.nats }}
{{- $secrets := "/etc/unrestrict-worker" }}
{{- with .Values.defender }}
- name: DEFENDER_CLOUD
  value: {{ .cloud }}
- name: DEFENDER_AUTH
  value: {{ .auth }}
{{- if .tenantId }}
- name: AZURE_TENANT_ID
  value: {{ .tenantId | quote }}
{{- end }}
{{- if .clientId }}
- name: AZURE_CLIENT_ID
  value: {{ .clientId | quote }}
{{- end }}
{{- if has .auth (list "client-secret" "client-certificate" "token-file") }}
- name: {{ get (dict "client-secret" "AZURE_CLIENT_SECRET_FILE" "client-certificate" "AZURE_CLIENT_CERTIFICATE_PATH" "token-file" "DEFENDER_TOKEN_FILE") .auth }}
  value: {{ $secrets }}/defender/{{ .auth }}
{{- end }}
{{- if and (eq .auth "workload-identity") .workloadIdentity.projectToken }}
- name: AZURE_FEDERATED_TOKEN_FILE
  value: /var/run/secrets/azure/tokens/azure-identity-token
{{- end }}
{{- end }}
- name: WORKER_ADMIN_ADDR
  value: 0.0.0.0:{{ .Values.admin.port }}
{{- if .Values.admin.existingSecret }}
- name: WORKER_ADMIN_TOKEN_FILE
  value: {{ $secrets }}/admin/token
{{- end }}
{{- with .Values.acceptance }}
{{- if .existingConfigMap }}
- name: WORKER_TRUSTED_SIGNERS_FILE
  value: {{ $secrets }}/acceptance/{{ .signersKey }}
{{- if .policyKey }}
- name: WORKER_POLICY_FILE
  value: {{ $secrets }}/acceptance/{{ .policyKey }}
{{- end }}
{{- end }}
{{- end }}
- name: WORKER_SHUTDOWN_TIMEOUT
  value: {{ .Values.shutdownTimeoutSeconds }}s
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What is mounted: name, and secret or config map. */}}
{{- define "worker.mounted" -}}
{{- if ne .Values.nats.auth "none" }}
nats: {secret: {{ .Values.nats.existingSecret }}}
{{- end }}
{{- if .Values.nats.tls.existingSecret }}
nats-tls: {secret: {{ .Values.nats.tls.existingSecret }}}
{{- end }}
{{- if has .Values.defender.auth (list "client-secret" "client-certificate" "token-file") }}
defender: {secret: {{ .Values.defender.existingSecret }}}
{{- end }}
{{- if .Values.admin.existingSecret }}
admin: {secret: {{ .Values.admin.existingSecret }}}
{{- end }}
{{- if .Values.acceptance.existingConfigMap }}
acceptance: {configMap: {{ .Values.acceptance.existingConfigMap }}}
{{- end }}
{{- end -}}

{{/* Volumes from a map of the form that worker.mounted makes. */}}
{{- define "worker.volumesOf" -}}
{{- range $name, $from := . }}
- name: {{ $name }}
  {{- if $from.secret }}
  secret: {secretName: {{ $from.secret }}, defaultMode: 0440, optional: false}
  {{- else }}
  configMap: {name: {{ $from.configMap }}, defaultMode: 0444, optional: false}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Whole folders, not single files: only then does a changed secret reach a running program. */}}
{{- define "worker.mountsOf" -}}
{{- range $name, $_ := . }}
- {name: {{ $name }}, mountPath: /etc/unrestrict-worker/{{ $name }}, readOnly: true}
{{- end }}
{{- end -}}

{{- define "worker.volumes" -}}
{{- include "worker.volumesOf" (include "worker.mounted" . | fromYaml) }}
{{- if and (eq .Values.defender.auth "workload-identity") .Values.defender.workloadIdentity.projectToken }}
- name: azure-identity-token
  projected:
    sources:
      - serviceAccountToken: {path: azure-identity-token, audience: "api://AzureADTokenExchange", expirationSeconds: 3600}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "worker.volumeMounts" -}}
{{- include "worker.mountsOf" (include "worker.mounted" . | fromYaml) }}
{{- if and (eq .Values.defender.auth "workload-identity") .Values.defender.workloadIdentity.projectToken }}
- {name: azure-identity-token, mountPath: /var/run/secrets/azure/tokens, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "worker.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "worker.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* A container of the image: service and check get the same settings. */}}
{{- define "worker.container" -}}
image: {{ include "worker.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext: {{- include "worker.containerSecurity" . | nindent 2 }}
{{- if .Values.config }}
envFrom:
  - configMapRef: {name: {{ include "worker.name" . }}}
{{- end }}
env: {{- include "worker.env" . | nindent 2 }}
resources: {{- toYaml .Values.resources | nindent 2 }}
{{- with include "worker.volumeMounts" . }}
volumeMounts: {{- . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What all pods have in common. */}}
{{- define "worker.anyPod" -}}
automountServiceAccountToken: false
securityContext: {{- include "worker.podSecurity" . | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- range $key := list "nodeSelector" "tolerations" "affinity" }}
{{- with index $.Values $key }}
{{ $key }}: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* What worker and check have in common. */}}
{{- define "worker.pod" -}}
serviceAccountName: {{ include "worker.serviceAccount" . }}
{{ include "worker.anyPod" . }}
{{- with include "worker.volumes" . }}
volumes: {{- . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Spreads the pods of a component over nodes and zones. */}}
{{- define "worker.spread" -}}
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- maxSkew: 1
  topologyKey: {{ . }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: {{- $.labels | nindent 6 }}
  matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end -}}

{{- define "worker.podLabels" -}}
{{- if and (eq .Values.defender.auth "workload-identity") (not .Values.defender.workloadIdentity.projectToken) }}
azure.workload.identity/use: "true"
{{- end }}
{{- with .Values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}
