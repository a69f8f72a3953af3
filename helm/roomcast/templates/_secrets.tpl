{{- /* The Secrets that settings of the chart name, as files of one volume. */ -}}
{{- define "roomcast.secretSources" -}}
{{- $sources := list -}}
{{- range .Values.backends -}}
{{- $item := dict "key" .existingSecret.key "path" (printf "backends/%s" .name) -}}
{{- $sources = append $sources (dict "secret" (dict "name" .existingSecret.name "items" (list $item))) -}}
{{- end -}}
{{- with .Values.grpcTls -}}
{{- if .existingSecret -}}
{{- $items := list (dict "key" "tls.crt" "path" "grpc-tls/tls.crt") (dict "key" "tls.key" "path" "grpc-tls/tls.key") -}}
{{- if .clientCertificates -}}
{{- $items = append $items (dict "key" "ca.crt" "path" "grpc-tls/ca.crt") -}}
{{- end -}}
{{- $sources = append $sources (dict "secret" (dict "name" .existingSecret "items" $items)) -}}
{{- end -}}
{{- end -}}
{{- with .Values.nats.auth -}}
{{- if .existingSecret -}}
{{- $key := coalesce .credsKey .nkeyKey .tokenKey .passwordKey -}}
{{- $items := list (dict "key" $key "path" "nats/credential") -}}
{{- $sources = append $sources (dict "secret" (dict "name" .existingSecret "items" $items)) -}}
{{- end -}}
{{- end -}}
{{- with .Values.nats.tls -}}
{{- if .existingSecret -}}
{{- $items := list (dict "key" .caKey "path" "nats/ca.crt") -}}
{{- if .certificateKey -}}
{{- $items = concat $items (list (dict "key" .certificateKey "path" "nats/tls.crt") (dict "key" .keyKey "path" "nats/tls.key")) -}}
{{- end -}}
{{- $sources = append $sources (dict "secret" (dict "name" .existingSecret "items" $items)) -}}
{{- end -}}
{{- end -}}
{{- toYaml $sources -}}
{{- end -}}
