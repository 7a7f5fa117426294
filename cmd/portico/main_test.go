package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// command runs the program as a shell would.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // a command that serves when it should refuse ends at once
	var out, err bytes.Buffer
	code = run(ctx, args, &out, &err)
	return code, out.String(), err.String()
}

func TestWrongCommandLines(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("not: [a kubeconfig"), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing")
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	tests := []struct {
		args string
		want string // in the line
	}{
		{"explode", `unknown command "explode"`},
		{"version now", `version takes no arguments`},
		{"--nope", `unknown flag: --nope`},
		{"serve now", `serve takes no arguments`},
		{"serve --nope", `unknown flag: --nope`},
		{"serve --manifests", `--manifests`},
		{"serve", `--manifests`},
		{"serve --manifests=", `--manifests "": `},
		{"serve --manifests " + missing, `--manifests "` + missing + `": no such file or directory`},
		{"serve --manifests " + file, `is not a folder`},
		{"serve --kubeconfig " + missing, `--kubeconfig "` + missing + `": no such file or directory`},
		{"serve --kubeconfig " + file, `--kubeconfig "` + file + `": `},
		{"serve --demo --manifests " + dir, `give one of them`},
		{"serve --demo --kubeconfig " + file, `give one of them`},
		{"serve --kubeconfig " + file + " --manifests " + dir, `give one of them`},
		{"serve --demo=maybe", `--demo "maybe": `},
		{"serve --demo --http foo", `--http "foo": want host:port`},
		{"serve --demo --http :http", `--http ":http": the port is not a number`},
		{"serve --demo --https :70000", `--https ":70000": the port is not a number`},
		{"serve --demo --admin 300.1.1.1:80", `--admin "300.1.1.1:80": "300.1.1.1" is not an IP address`},
		{"serve --demo --http= --https=", `nothing to serve`},
		{"serve --demo --http :8080 --https :8080", `both are ":8080"`},
		{"serve --demo --ingress-class=", `must not be empty`},
		{"serve --demo --controller-class=", `must not be empty`},
		{"serve --demo --watch-ingress-without-class=x", `--watch-ingress-without-class "x": `},
		{"serve --demo --watch-namespace a/b", `--watch-namespace "a/b": want the name of a namespace`},
		{"serve --demo --watch-namespace=", `--watch-namespace "": want the name of a namespace`},
		{"serve --demo --publish-service portico", `--publish-service "portico": want namespace/name`},
		{"serve --demo --publish-status-address 1.2.3.4,,", `--publish-status-address "1.2.3.4,,": want IP addresses`},
		{"serve --demo --publish-service a/b --publish-status-address 1.2.3.4", `give one of them`},
		{"serve --demo --default-ssl-certificate a/b/c", `--default-ssl-certificate "a/b/c": want namespace/name`},
		{"serve --demo --default-backend-service A/b", `--default-backend-service "A/b": want namespace/name`},
		{"serve --demo --configmap x", `--configmap "x": want namespace/name`},
		{"serve --demo --election-id UPPER", `--election-id "UPPER": want the name of a Lease`},
		{"serve --demo --update-status=perhaps", `--update-status "perhaps": `},
		{"serve --demo --shutdown-grace-period soon", `--shutdown-grace-period "soon": want a duration`},
		{"serve --demo --shutdown-grace-period=-1s", `--shutdown-grace-period "-1s": want a duration`},
		{"serve --demo --shutdown-delay 99999999999999999999", `--shutdown-delay`},
		{"serve --demo --log-level loud", `--log-level "loud": want one of debug, info, warn, error`},
		{"serve --demo --access-log " + missing + "/log", `--access-log "` + missing + `/log": no such file`},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			code, stdout, stderr := command(t, strings.Fields(tt.args)...)
			if code != exitUsage {
				t.Errorf("exit code %d, want %d", code, exitUsage)
			}
			if stdout != "" {
				t.Errorf("stdout %q, want nothing", stdout)
			}
			if strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "portico: ") || !strings.Contains(stderr, tt.want) {
				t.Errorf("stderr %q, want one line with %q", stderr, tt.want)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	tests := []struct{ args, want string }{
		{"", "portico [command]"},
		{"--help", "portico [command]"},
		{"serve --help", "--shutdown-grace-period"},
	}
	for _, tt := range tests {
		code, stdout, stderr := command(t, strings.Fields(tt.args)...)
		if code != exitOK || !strings.Contains(stdout, tt.want) || stderr != "" {
			t.Errorf("portico %s: code %d, stdout %q, stderr %q; want %q on stdout", tt.args, code, stdout, stderr, tt.want)
		}
	}
}

func TestVersion(t *testing.T) {
	code, stdout, stderr := command(t, "version")
	if code != exitOK || !strings.HasPrefix(stdout, "portico dev\ncommit unknown\ngo1.") || stderr != "" {
		t.Errorf("code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}
