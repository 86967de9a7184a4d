{{/* A Pod. Takes a dict: root, facts, component (a role, or migrate), args, config (the ConfigMap's name). */}}
{{- define "decorum.pod" -}}
{{- $values := .root.Values -}}
{{- $facts := .facts -}}
{{- $serves := ne .component "migrate" -}}
{{- $keeps := and $serves $facts.sqlite -}}
metadata:
  labels:
    {{- include "decorum.labels" (list .root .component) | nindent 4 }}
    {{- with $values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    {{- /* Of what only a restart brings into force: the gateway takes up changes of the rest by itself. */}}
    checksum/config: {{ .facts.restarting }}
    {{- with $values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with $values.serviceAccountName }}
  serviceAccountName: {{ . }}
  {{- end }}
  {{- with $values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    {{- toYaml $values.podSecurityContext | nindent 4 }}
  terminationGracePeriodSeconds: {{ int $values.terminationGracePeriodSeconds }}
  {{- if not $serves }}
  restartPolicy: Never
  {{- end }}
  containers:
    - name: decorum
      image: {{ include "decorum.image" .root | quote }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      args:
        {{- toYaml .args | nindent 8 }}
      env:
        - name: DECORUM_CONFIG
          value: /etc/decorum/gateway.yaml
        {{- with $values.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $values.existingSecrets }}
      envFrom:
        {{- range . }}
        - secretRef: {name: {{ . }}}
        {{- end }}
      {{- end }}
      securityContext:
        {{- toYaml $values.securityContext | nindent 8 }}
      resources:
        {{- toYaml ((index $values .component | default dict).resources | default $values.resources) | nindent 8 }}
      {{- if $serves }}
      ports:
        - {name: private, containerPort: {{ int $facts.private }}}
        {{- if and $facts.public (eq .component $facts.front) }}
        - {name: public, containerPort: {{ int $facts.public }}}
        {{- end }}
      startupProbe:
        {{- include "decorum.asks" (list $facts "/livez") | nindent 8 }}
        periodSeconds: 2
        timeoutSeconds: 5
        failureThreshold: 60
      livenessProbe:
        {{- include "decorum.asks" (list $facts "/livez") | nindent 8 }}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        {{- include "decorum.asks" (list $facts "/readyz") | nindent 8 }}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 2
      {{- end }}
      volumeMounts:
        # A folder, never a subPath: that would not change with the ConfigMap.
        - {name: config, mountPath: /etc/decorum, readOnly: true}
        - {name: tmp, mountPath: /tmp}
        {{- if $keeps }}
        - {name: data, mountPath: /data}
        {{- end }}
        {{- range $index, $name := $values.existingSecretFiles }}
        - {name: secret-{{ $index }}, mountPath: /run/secrets/{{ $name }}, readOnly: true}
        {{- end }}
  volumes:
    - name: config
      configMap: {name: {{ .config }}}
    - name: tmp
      emptyDir: {}
    {{- if $keeps }}
    - name: data
      persistentVolumeClaim:
        claimName: {{ $values.persistence.existingClaim | default (include "decorum.name" .root) }}
    {{- end }}
    {{- range $index, $name := $values.existingSecretFiles }}
    - name: secret-{{ $index }}
      secret: {secretName: {{ $name }}}
    {{- end }}
  {{- with $values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if and $serves (not $facts.sqlite) }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "decorum.selector" (list .root .component) | nindent 10 }}
  {{- end }}
{{- end -}}

{{/* The question of a probe. Takes a list: facts, path. A private listener on loopback is asked from within. */}}
{{- define "decorum.asks" -}}
{{- $facts := first . -}}
{{- if $facts.loopback -}}
exec:
  command:
    - python
    - -c
    - >-
      import http.client as h; c = h.HTTPConnection("localhost", {{ int $facts.private }}, timeout=4);
      c.request("GET", "{{ last . }}"); raise SystemExit(c.getresponse().status != 200)
{{- else -}}
httpGet: {path: {{ last . }}, port: private}
{{- end -}}
{{- end -}}
