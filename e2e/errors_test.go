package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestPorticoAnswersItselfWhatNobodyElseDoes(t *testing.T) {
	t.Parallel()
	e := portico(t)
	ns := newNamespace(t)
	ips := paint(t)
	port80 := corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}
	for _, name := range []string{"blue", "empty", "closed", "silent"} {
		createService(t, ns, name, port80)
	}
	createSlice(t, ns, "blue", "blue", 8080, endpoint{ip: ips["blue"]})
	createSlice(t, ns, "empty", "empty", 8080)
	createSlice(t, ns, "closed", "closed", 9, endpoint{ip: ips["blue"]})
	createSlice(t, ns, "silent", "silent", silentPort, endpoint{ip: up.ClientIP().String()})
	silence(t)
	host := ns + ".test"
	createIngress(t, ns, newIngress("errors",
		rule{host: host, path: "/blue", backend: "blue"},
		rule{host: host, path: "/empty", backend: "empty"},
		rule{host: host, path: "/missing", backend: "missing"},
		rule{host: host, path: "/no-port", backend: "blue:nope"},
		rule{host: host, path: "/closed", backend: "closed"},
		rule{host: host, path: "/silent", backend: "silent"},
	))
	e.settle(t)
	e.waitAnsweredBy(t, "blue", "http://"+host+"/blue")
	e.waitAnsweredBy(t, "502", "http://"+host+"/closed")

	for _, tt := range []struct {
		name   string
		url    string
		args   []string
		status int
	}{
		{name: "404 for an unknown host", url: "http://nobody-has.test/", status: 404},
		{name: "404 for an unknown path", url: "http://" + host + "/", status: 404},
		{name: "503 for a Service without endpoints", url: "http://" + host + "/empty", status: 503},
		{name: "503 for a Service that does not exist", url: "http://" + host + "/missing", status: 503},
		{name: "503 for a port that the Service does not have", url: "http://" + host + "/no-port", status: 503},
		{name: "502 for an endpoint that refuses connections", url: "http://" + host + "/closed", status: 502},
		{name: "502 for a POST, too", url: "http://" + host + "/closed", args: []string{"--data", "x=1"}, status: 502},
		{name: "504 for an endpoint that says nothing", url: "http://" + host + "/silent", status: 504},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, accept := range []string{"", "application/json", "text/html", "text/html,application/json;q=0.9", "application/problem+json"} {
				args := tt.args
				if accept != "" {
					args = append(args, "-H", "Accept: "+accept)
				}
				a := e.ask(t.Context(), tt.url, args...)
				if wrong := wrongPage(a, tt.status, strings.Contains(accept, "json") && !strings.Contains(accept, "html")); wrong != "" {
					t.Errorf("%s\n%s", wrong, a)
				}
				if tt.status == 504 {
					break // each takes as long as connecting may take
				}
			}
		})
	}

	t.Run("without a body for HEAD", func(t *testing.T) {
		a := e.ask(t.Context(), "http://nobody-has.test/", "--head")
		if a.status != 404 || a.body != "" || a.head.Get("Content-Length") == "" {
			t.Errorf("want 404 with a length and without a body\n%s", a)
		}
	})
	t.Run("with a request id that is in the access log", func(t *testing.T) {
		a := e.ask(t.Context(), "http://"+host+"/empty", "-H", "Accept: application/json")
		e.waitLogged(t, requestID(a.body), `"status":503`)
	})
	t.Run("the Server field says portico", func(t *testing.T) {
		for url, want := range map[string]string{
			"http://" + host + "/nothing":                 "portico",
			"http://" + host + "/blue":                    "portico",
			"http://" + host + "/blue?header=Server:mine": "mine",
		} {
			if a := e.ask(t.Context(), url); strings.Join(a.head.Values("Server"), ",") != want {
				t.Errorf("Server: %q, want %q\n%s", a.head.Values("Server"), want, a)
			}
		}
	})
	t.Run("the status of the backend is its own", func(t *testing.T) {
		for _, status := range []int{404, 500, 503} {
			a := e.ask(t.Context(), fmt.Sprintf("http://%s/blue?status=%d", host, status))
			if a.status != status || a.echo.Name != "blue" {
				t.Errorf("want %d from blue\n%s", status, a)
			}
		}
	})
}

var idRE = regexp.MustCompile(`[0-9a-f]{32}`)

func requestID(body string) string { return idRE.FindString(body) }

// wrongPage says what is wrong with an error page.
func wrongPage(a answer, status int, wantJSON bool) string {
	if a.err != nil || a.status != status {
		return fmt.Sprintf("status %d, want %d", a.status, status)
	}
	if a.head.Get("Server") != "portico" {
		return "the Server field is not portico's"
	}
	if requestID(a.body) == "" || len(a.body) > 1000 {
		return "the body is no short text with a request id"
	}
	if !wantJSON {
		if !strings.HasPrefix(a.head.Get("Content-Type"), "text/html") || !strings.HasPrefix(a.body, "<!DOCTYPE html>") {
			return "want HTML"
		}
		return ""
	}
	var page struct {
		Status    int    `json:"status"`
		Error     string `json:"error"`
		RequestID string `json:"requestId"`
	}
	err := json.Unmarshal([]byte(a.body), &page)
	if err != nil || a.head.Get("Content-Type") != "application/json" || page.Status != status ||
		page.Error != http.StatusText(status) || !idRE.MatchString(page.RequestID) {
		return fmt.Sprintf("want JSON: %v", err)
	}
	return ""
}

// silentPort is a port of the client host that drops what it gets.
const silentPort = 9999

func silence(t *testing.T) {
	t.Helper()
	rules := fmt.Sprintf("table inet e2e { chain silent { type filter hook input priority 0; tcp dport %d drop; }; }", silentPort)
	if _, err := up.ExecClient(t.Context(), "nft", "add table inet e2e; delete table inet e2e; "+rules); err != nil {
		t.Fatal(err)
	}
}

// waitLogged waits until some replica has logged a line with all of the parts.
func (e *edge) waitLogged(t *testing.T, parts ...string) {
	t.Helper()
	waitFor(t, 15*time.Second, "log of "+strings.Join(parts, " "), func(ctx context.Context) string {
		for _, r := range e.all() {
			out, err := up.Kubectl(ctx, "logs", "-n", porticoNamespace, r.pod, "--since=1m")
			if err != nil {
				return err.Error()
			}
			for line := range strings.Lines(out) {
				found := true
				for _, p := range parts {
					found = found && strings.Contains(line, p)
				}
				if found {
					return ""
				}
			}
		}
		return "no such line"
	})
}
