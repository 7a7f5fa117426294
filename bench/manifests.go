package main

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// manifests is what Portico serves: one Ingress for the host that is asked for, among many
// others, as in a cluster that is shared.
func (s *site) manifests() string {
	var b strings.Builder
	fmt.Fprintf(&b, secretYAML, base64.StdEncoding.EncodeToString(s.cert.cert), base64.StdEncoding.EncodeToString(s.cert.key))
	fmt.Fprintf(&b, serviceYAML, "http", "http", port(s.backend))
	fmt.Fprintf(&b, serviceYAML, "grpc", "kubernetes.io/h2c", port(s.grpc))
	for i := range s.routes - 1 {
		fmt.Fprintf(&b, otherYAML, i)
	}
	b.WriteString(ingressYAML)
	return b.String()
}

const secretYAML = `
apiVersion: v1
kind: Namespace
metadata: {name: bench}
---
apiVersion: v1
kind: Secret
metadata: {name: tls, namespace: bench}
type: kubernetes.io/tls
data: {tls.crt: %s, tls.key: %s}
`

const serviceYAML = `---
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: bench}
spec:
  ports: [{name: main, port: 80, protocol: TCP, appProtocol: %[2]q}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s, namespace: bench, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
ports: [{name: main, port: %[3]d, protocol: TCP, appProtocol: %[2]q}]
endpoints: [{addresses: [127.0.0.1]}]
`

const otherYAML = `---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: other-%[1]d, namespace: bench}
spec:
  ingressClassName: portico
  rules:
    - host: other-%[1]d.example
      http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: http, port: {number: 80}}}}]}
`

const ingressYAML = `---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: bench, namespace: bench, annotations: {portico.dev/ssl-redirect: "false"}}
spec:
  ingressClassName: portico
  tls: [{hosts: [localhost], secretName: tls}]
  rules:
    - host: localhost
      http:
        paths:
          - {path: /, pathType: Prefix, backend: {service: {name: http, port: {number: 80}}}}
          - {path: /grpc.Bench, pathType: Prefix, backend: {service: {name: grpc, port: {number: 80}}}}
`
