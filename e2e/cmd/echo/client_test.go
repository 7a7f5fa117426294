package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func get(t *testing.T, target string) (status int, body string) {
	t.Helper()
	res, err := http.Get(target)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestTellsItsEnvironment(t *testing.T) {
	t.Setenv("WEB_SERVICE_HOST", "10.96.0.7")
	if _, body := get(t, "http://"+start(t)+"/env"); !strings.Contains(body, `"WEB_SERVICE_HOST":"10.96.0.7"`) {
		t.Error(body)
	}
}

func TestFetches(t *testing.T) {
	at := "http://" + start(t)
	status, body := get(t, at+"/fetch?url="+url.QueryEscape(at+"/x?status=418"))
	if status != http.StatusTeapot || !strings.Contains(body, `"requestURI": "/x?status=418"`) {
		t.Errorf("%d %s", status, body)
	}
	if status, body := get(t, at+"/fetch?url=http://127.0.0.1:1/"); status != http.StatusBadGateway || !strings.Contains(body, "refused") {
		t.Errorf("%d %s", status, body)
	}
}

func TestLooksUp(t *testing.T) {
	at := "http://" + start(t)
	for query, want := range map[string]Lookup{
		"type=host&name=127.0.0.1": {Answers: []string{"127.0.0.1"}},
		"type=mx&name=x":           {Error: `no type "mx"; there are host, cname, srv and addr`},
	} {
		_, body := get(t, at+"/lookup?"+query)
		var got Lookup
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatal(err)
		}
		if strings.Join(got.Answers, ",") != strings.Join(want.Answers, ",") || got.Error != want.Error || len(got.Asked) > 0 {
			t.Errorf("%s: %+v, want %+v", query, got, want)
		}
	}
}
