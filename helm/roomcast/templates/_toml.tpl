{{- /* A value of TOML. Numbers of values come as floating point: whole ones are written as integers. */ -}}
{{- define "roomcast.toml.value" -}}
{{- $value := . -}}
{{- if kindIs "map" $value -}}
{{- $pairs := list -}}
{{- range $key := keys $value | sortAlpha -}}
{{- $inner := get $value $key -}}
{{- if not (kindIs "invalid" $inner) -}}
{{- $pairs = append $pairs (printf "%s = %s" (include "roomcast.toml.key" $key) (include "roomcast.toml.value" $inner)) -}}
{{- end -}}
{{- end -}}
{{- if $pairs -}}{ {{ join ", " $pairs }} }{{- else -}}{}{{- end -}}
{{- else if kindIs "slice" $value -}}
{{- $items := list -}}
{{- range $value -}}
{{- $items = append $items (include "roomcast.toml.value" .) -}}
{{- end -}}
[{{ join ", " $items }}]
{{- else if kindIs "float64" $value -}}
{{- if eq (floor $value) $value -}}{{ printf "%.0f" $value }}{{- else -}}{{ toRawJson $value }}{{- end -}}
{{- else -}}
{{- /* What JSON escapes in a string, TOML reads the same. */ -}}
{{- toRawJson $value -}}
{{- end -}}
{{- end -}}

{{- define "roomcast.toml.key" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . -}}{{ . }}{{- else -}}{{ toRawJson . }}{{- end -}}
{{- end -}}

{{- /* A file of TOML: a table for each section; a list of tables has a line for each. */ -}}
{{- define "roomcast.toml" -}}
{{- $config := . -}}
{{- range $section := keys $config | sortAlpha }}
{{- $table := get $config $section }}
{{- if $table }}
[{{ $section }}]
{{- range $key := keys $table | sortAlpha }}
{{- $value := get $table $key }}
{{- if kindIs "invalid" $value }}
{{- else if and (kindIs "slice" $value) $value (kindIs "map" (first $value)) }}
{{ $key }} = [
{{- range $value }}
  {{ include "roomcast.toml.value" . }},
{{- end }}
]
{{- else }}
{{ $key }} = {{ include "roomcast.toml.value" $value }}
{{- end }}
{{- end }}
{{ end }}
{{- end }}
{{- end -}}
