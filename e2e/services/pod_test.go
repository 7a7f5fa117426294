package services

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// inside is a Pod that tells how the cluster looks from inside of it: echo is a client too.
type inside struct{ address string }

// startInside starts such a Pod on node1. What is to be in its environment has to be there before.
func startInside(t *testing.T, namespace string) inside {
	t.Helper()
	apply(t, namespace, `
apiVersion: v1
kind: Pod
metadata: {name: inside}
spec:
  nodeName: node1
  terminationGracePeriodSeconds: 1
  containers:
    - name: echo
      image: localhost/echo:1
      imagePullPolicy: Never
      env: [{name: LAMEDUCK, value: "0s"}]
      readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}
`)
	ready(t, namespace, "inside")
	return inside{net.JoinHostPort(podIP(t, namespace, "inside"), "8080")}
}

func podIP(t *testing.T, namespace, name string) string {
	t.Helper()
	p, err := client.CoreV1().Pods(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return p.Status.PodIP
}

func (i inside) get(ctx context.Context, path string, query url.Values) (status int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+i.address+path+"?"+query.Encode(), nil)
	if err != nil {
		return 0, nil, err
	}
	res, err := httpFrom("node1", 10*time.Second, false).Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err = io.ReadAll(res.Body)
	return res.StatusCode, body, err
}

// environment is that of the Pod's process.
func (i inside) environment(t *testing.T) (env map[string]string) {
	t.Helper()
	_, body, err := i.get(t.Context(), "/env", nil)
	if err == nil {
		err = json.Unmarshal(body, &env)
	}
	if err != nil {
		t.Fatal(err)
	}
	return env
}

// found is what the Pod's resolver says.
type found struct {
	Asked   []string `json:"asked"`
	Answers []string `json:"answers"`
	Error   string   `json:"error"`
}

func (i inside) lookup(ctx context.Context, network, kind, name string) (f found, err error) {
	_, body, err := i.get(ctx, "/lookup", url.Values{"network": {network}, "type": {kind}, "name": {name}})
	if err != nil {
		return f, err
	}
	return f, json.Unmarshal(body, &f)
}

// fetch asks a URL from inside of the Pod.
func (i inside) fetch(ctx context.Context, target string) (body []byte, err error) {
	status, body, err := i.get(ctx, "/fetch", url.Values{"url": {target}})
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%s: status %d: %.200s", target, status, body)
	}
	return body, err
}

// ask asks an echo from inside of the Pod.
func (i inside) ask(ctx context.Context, target string) (a answer, err error) {
	body, err := i.fetch(ctx, target)
	if err != nil {
		return a, err
	}
	return a, json.Unmarshal(body, &a)
}
