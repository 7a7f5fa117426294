package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/portico-ingress/portico/e2e/suite"
)

// answer is what a client got for one request, made with curl.
type answer struct {
	sent   string // the command
	status int    // 0: there was no answer
	proto  string
	head   http.Header
	body   string
	echo   echoReport // if an echo backend made it
	err    error
}

// String shows what was sent and what came back, for people.
func (a answer) String() string {
	body := a.body
	if len(body) > 1500 {
		body = body[:1500] + "..."
	}
	return fmt.Sprintf("sent: %s\ngot:  %s %d %v\n%s\nerror: %v", a.sent, a.proto, a.status, a.head, body, a.err)
}

// by is the echo backend that answered, or else the status.
func (a answer) by() string {
	if name := a.head.Get("X-Echo-Name"); name != "" {
		return name
	}
	return strconv.Itoa(a.status)
}

// ask sends one request from the client host, with curl, to a node that has a
// replica. The URL is as a user would have it, without a port.
func (e *edge) ask(ctx context.Context, rawURL string, args ...string) answer {
	return e.askAt(ctx, e.next(), rawURL, args...)
}

// askAt asks the node with that address.
func (e *edge) askAt(ctx context.Context, node, rawURL string, args ...string) answer {
	u, err := url.Parse(rawURL)
	if err != nil {
		return answer{sent: rawURL, err: err}
	}
	return askVia(ctx, fmt.Sprintf("::%s:%d", node, e.port(u.Scheme)), rawURL, args...)
}

// askVia connects to what curl's --connect-to says.
func askVia(ctx context.Context, connectTo, rawURL string, args ...string) answer {
	argv := append([]string{
		"env", "LC_ALL=C.UTF-8", // curl reads international names by it
		"curl", "--silent", "--show-error", "--include", "--max-time", "10", "--connect-to", connectTo,
	}, args...)
	argv = append(argv, rawURL)
	a := answer{sent: strings.Join(argv[2:], " ")}
	out, err := up.ExecClient(ctx, argv...)
	a.err = err
	a.read(out)
	return a
}

// read takes what curl --include wrote, of several answers the last.
func (a *answer) read(out string) {
	a.readHead(out)
	if a.head.Get("X-Echo-Name") != "" {
		_ = json.Unmarshal([]byte(a.body), &a.echo)
	}
}

func (a *answer) readHead(out string) {
	for {
		head, rest, ok := strings.Cut(out, "\r\n\r\n")
		if !ok || !strings.HasPrefix(head, "HTTP/") {
			a.body = out
			return
		}
		line, fields, _ := strings.Cut(head+"\r\n\r\n", "\r\n")
		parts := strings.SplitN(line, " ", 3)
		a.proto = parts[0]
		a.status, _ = strconv.Atoi(parts[1])
		h, _ := textproto.NewReader(bufio.NewReader(strings.NewReader(fields))).ReadMIMEHeader()
		a.head, out = http.Header(h), rest
		n, _ := strconv.Atoi(a.head.Get("Content-Length"))
		switch {
		case a.status < 200: // only the beginning of an answer
		case n == 0 && strings.HasPrefix(out, "HTTP/"): // a redirect that was followed
		default:
			a.body = out
			return
		}
	}
}

// eventually asks until the answer is as wanted.
func (e *edge) eventually(t *testing.T, within time.Duration, want func(answer) string, url string, args ...string) answer {
	t.Helper()
	var last answer
	suite.Wait(t, within, "an answer from "+url, func(ctx context.Context) string {
		a := e.ask(ctx, url, args...)
		if ctx.Err() == nil || last.sent == "" {
			last = a
		}
		if missing := want(a); missing != "" {
			return missing + "\n" + a.String()
		}
		return ""
	})
	return last
}

// answeredBy wants the answer of that echo backend, or that status.
func answeredBy(who string) func(answer) string {
	return func(a answer) string {
		if a.by() != who {
			return fmt.Sprintf("answered by %s, want %s", a.by(), who)
		}
		return ""
	}
}

// waitAnsweredBy asks until that backend answers, or with that status.
func (e *edge) waitAnsweredBy(t *testing.T, who, url string, args ...string) answer {
	t.Helper()
	return e.eventually(t, 15*time.Second, answeredBy(who), url, args...)
}

// mustBeAnsweredBy asks once, of each replica.
func (e *edge) mustBeAnsweredBy(t *testing.T, who, url string, args ...string) {
	t.Helper()
	for range e.all() {
		a := e.ask(t.Context(), url, args...)
		if a.by() != who {
			t.Errorf("answered by %s, want %s\n%s", a.by(), who, a)
		}
	}
}
