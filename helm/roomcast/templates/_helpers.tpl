{{- define "roomcast.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- /* At most 40 characters: suffixes of ours and of controllers follow, and a name has 63. */ -}}
{{- define "roomcast.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "roomcast.selector" -}}
app.kubernetes.io/name: {{ include "roomcast.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end -}}

{{- define "roomcast.nats.selector" -}}
app.kubernetes.io/name: {{ include "roomcast.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: nats
{{- end -}}

{{- define "roomcast.labels.common" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: roomcast
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "roomcast.labels" -}}
{{ include "roomcast.selector" . }}
{{ include "roomcast.labels.common" . }}
{{- end -}}

{{- define "roomcast.nats.labels" -}}
{{ include "roomcast.nats.selector" . }}
{{ include "roomcast.labels.common" . }}
{{- end -}}

{{- define "roomcast.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "roomcast.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "roomcast.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Not empty when nodes share NATS. */ -}}
{{- define "roomcast.clustered" -}}
{{- if or .Values.nats.servers .Values.nats.bundled.enabled -}}true{{- end -}}
{{- end -}}

{{- /* What a node does at its end takes at most the window, 5 s for late clients, 5 s for tasks, the requests to NATS that take leave (2 s
each), and 6 s for the last spans and log lines: 30 s beside the window. */ -}}
{{- define "roomcast.gracePeriod" -}}
{{- with .Values.drain -}}
{{- if .terminationGracePeriodSeconds -}}
{{- int .terminationGracePeriodSeconds -}}
{{- else -}}
{{- add (int .preStopSeconds) (int .windowSeconds) 30 -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Values that contradict each other. The schema sees one value at a time. */ -}}
{{- define "roomcast.check" -}}
{{- $v := .Values -}}
{{- $clustered := include "roomcast.clustered" . -}}
{{- if not $clustered -}}
{{- if gt (int $v.replicaCount) 1 -}}
{{- fail "replicaCount: several nodes need NATS (nats.servers or nats.bundled.enabled); without it each would be a gateway of its own" -}}
{{- end -}}
{{- if or $v.autoscaling.enabled $v.keda.enabled -}}
{{- fail "autoscaling, keda: several nodes need NATS (nats.servers or nats.bundled.enabled)" -}}
{{- end -}}
{{- end -}}
{{- if and $v.nats.servers $v.nats.bundled.enabled -}}
{{- fail "nats.servers and nats.bundled.enabled: give one of both" -}}
{{- end -}}
{{- if and $v.autoscaling.enabled $v.keda.enabled -}}
{{- fail "autoscaling.enabled and keda.enabled: KEDA makes a HorizontalPodAutoscaler itself; give one of both" -}}
{{- end -}}
{{- if and $v.autoscaling.enabled (gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) -}}
{{- fail "autoscaling.minReplicas: more than maxReplicas" -}}
{{- end -}}
{{- if and $v.autoscaling.enabled (not $v.autoscaling.targetCPUUtilizationPercentage) (not $v.autoscaling.targetConnections) -}}
{{- fail "autoscaling: give targetCPUUtilizationPercentage, targetConnections or both" -}}
{{- end -}}
{{- if $v.keda.enabled -}}
{{- if gt (int $v.keda.minReplicas) (int $v.keda.maxReplicas) -}}
{{- fail "keda.minReplicas: more than maxReplicas" -}}
{{- end -}}
{{- if not $v.keda.prometheusAddress -}}
{{- fail "keda.prometheusAddress: required when keda.enabled" -}}
{{- end -}}
{{- end -}}
{{- $grpc := default dict $v.config.grpc -}}
{{- if not (or $v.backends $grpc.services $grpc.jwt) -}}
{{- fail "backends: give at least one backend service (or config.grpc.jwt); without one a node does not start" -}}
{{- end -}}
{{- with $v.nats.auth -}}
{{- $kinds := 0 -}}
{{- range list .credsKey .nkeyKey .tokenKey .passwordKey -}}
{{- if . -}}{{- $kinds = add1 $kinds -}}{{- end -}}
{{- end -}}
{{- if and .existingSecret (ne (int $kinds) 1) -}}
{{- fail "nats.auth: give exactly one of credsKey, nkeyKey, tokenKey and passwordKey" -}}
{{- end -}}
{{- if and (not .existingSecret) (gt (int $kinds) 0) -}}
{{- fail "nats.auth.existingSecret: required for its keys" -}}
{{- end -}}
{{- if ne (empty .user) (empty .passwordKey) -}}
{{- fail "nats.auth: user and passwordKey belong together" -}}
{{- end -}}
{{- if and $v.nats.bundled.enabled .existingSecret (not .tokenKey) -}}
{{- fail "nats.auth: bundled NATS takes a token (tokenKey)" -}}
{{- end -}}
{{- end -}}
{{- if ne (empty $v.nats.tls.certificateKey) (empty $v.nats.tls.keyKey) -}}
{{- fail "nats.tls: certificateKey and keyKey belong together" -}}
{{- end -}}
{{- if and $v.nats.bundled.enabled $v.nats.tls.existingSecret -}}
{{- fail "nats.tls: bundled NATS speaks plain text inside the release; use nats.servers for TLS" -}}
{{- end -}}
{{- if and $v.grpcTls.clientCertificates (not $v.grpcTls.existingSecret) -}}
{{- fail "grpcTls.clientCertificates: needs grpcTls.existingSecret, with ca.crt" -}}
{{- end -}}
{{- if and $v.ingress.enabled (not $v.ingress.hosts) -}}
{{- fail "ingress.hosts: required when ingress.enabled" -}}
{{- end -}}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) -}}
{{- fail "httpRoute.parentRefs: required when httpRoute.enabled" -}}
{{- end -}}
{{- if and $v.grpcRoute.enabled (not $v.grpcRoute.parentRefs) -}}
{{- fail "grpcRoute.parentRefs: required when grpcRoute.enabled" -}}
{{- end -}}
{{- with $v.drain -}}
{{- if and .terminationGracePeriodSeconds (lt (int .terminationGracePeriodSeconds) (add (int .preStopSeconds) (int .windowSeconds) 10 | int)) -}}
{{- fail "drain.terminationGracePeriodSeconds: less than preStopSeconds + windowSeconds + 10; clients would be cut off" -}}
{{- end -}}
{{- end -}}
{{- $grpcNames := list -}}
{{- range $v.backends -}}
{{- if has .name $grpcNames -}}
{{- fail (printf "backends: %s is there twice" .name) -}}
{{- end -}}
{{- $grpcNames = append $grpcNames .name -}}
{{- end -}}
{{- end -}}
