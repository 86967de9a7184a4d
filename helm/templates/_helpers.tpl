{{/* What everything is called. */}}
{{- define "decorum.name" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* By which Pods are selected: never changes while a release lives. Takes a list: root, component or "" for all. */}}
{{- define "decorum.selector" -}}
{{- $root := first . -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- with last . }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{/* On everything. Takes a list: root, component or "". */}}
{{- define "decorum.labels" -}}
{{- $root := first . -}}
{{ include "decorum.selector" . }}
app.kubernetes.io/version: {{ $root.Values.image.tag | default $root.Chart.AppVersion | trunc 63 | quote }}
app.kubernetes.io/part-of: {{ $root.Chart.Name }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "decorum.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end -}}

{{/* gateway.yaml, word for word. */}}
{{- define "decorum.config" -}}
{{- if not (kindIs "string" .Values.config) -}}
{{- fail "config must be a text: write `config: |`, or --set-file config=gateway.yaml. Helm would sort a mapping, and the order of routes has a meaning." -}}
{{- end -}}
{{- .Values.config | default (.Files.Get "sample.yaml") -}}
{{- end -}}

{{/*
What the configuration decides, as JSON. `private` and `public` are ports (0: none), `loopback` is of the private one,
`front` is the role that Services lead to, `restarting` a hash of what only a restart brings into force.
*/}}
{{- define "decorum.facts" -}}
{{- $config := include "decorum.config" . | fromYaml -}}
{{- with $config.Error -}}{{- fail (printf "config is not YAML that holds a mapping: %s" .) -}}{{- end -}}
{{- $store := $config.store | default "sqlite:///decorum.db" -}}
{{- $sqlite := and (kindIs "string" $store) (hasPrefix "sqlite:" $store) -}}
{{- if and $sqlite (hasPrefix "sqlite:////" $store) (not (hasPrefix "sqlite:////data/" $store)) -}}
{{- fail "config: store must be in /data, where the volume is: sqlite:////data/decorum.db" -}}
{{- end -}}
{{- $http := $config.http | default dict -}}
{{- $private := $http.private | default "127.0.0.1:8080" -}}
{{- $public := $http.public | default "" -}}
{{- range $name, $place := dict "private" $private "public" $public -}}
{{- if not (kindIs "string" $place) -}}
{{- fail (printf "config: http.%s must be written out, 0.0.0.0:8080, since Services and probes need its port" $name) -}}
{{- end -}}
{{- end -}}
{{- $loopback := `^(127\.|localhost:|\[::1\])` -}}
{{- if and (not $config.keys) (not (regexMatch $loopback $private)) -}}
{{- fail "config: http.private must be a loopback address while there are no keys: add keys, or write private: 127.0.0.1:8080" -}}
{{- end -}}
{{- if regexMatch $loopback $public -}}
{{- fail "config: http.public must be 0.0.0.0:8081, or [::]:8081 where there is IPv6 alone: nobody could reach it" -}}
{{- end -}}
{{- $roles := list "all" -}}
{{- if not $sqlite -}}
{{- $roles = ternary (list "intake" "worker" "web") (list "worker" "web") (not (not $config.broker)) -}}
{{- end -}}
{{- dict
    "sqlite" $sqlite
    "loopback" (regexMatch $loopback $private)
    "private" (regexFind "[0-9]+$" $private | int)
    "public" (regexFind "[0-9]+$" $public | int)
    "roles" $roles
    "front" (ternary "all" "web" $sqlite)
    "restarting" (omit $config "policy" "routes" "retention" "report" | toJson | sha256sum)
  | toJson -}}
{{- end -}}
