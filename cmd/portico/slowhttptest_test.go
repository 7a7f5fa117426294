package main

import (
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestServeUnderSlowHTTPTest has the tool of that name (Debian package slowhttptest) attack the
// whole program in all of its ways at once, with the deadlines that it comes with. Others are
// answered all the while, and afterwards.
func TestServeUnderSlowHTTPTest(t *testing.T) {
	s := start(t, "--demo", "--access-log=off")
	attacks := map[string][]string{
		"slow heads":  {"-H", "-i", "1"},
		"slow bodies": {"-B", "-i", "1", "-s", "8192"},
		"slow reads":  {"-X", "-w", "10", "-y", "20", "-n", "1", "-z", "5", "-k", "1"},
		"ranges":      {"-R", "-a", "5", "-b", "3000"},
	}
	var wg sync.WaitGroup
	for name, flags := range attacks {
		wg.Go(func() {
			flags = append(flags, "-c", "150", "-r", "150", "-l", "4", "-p", "3", "-u", "http://"+s.http+"/")
			out, _ := exec.CommandContext(t.Context(), "slowhttptest", flags...).CombinedOutput() // its status says how it ended
			text := regexp.MustCompile(`\x1b\[[0-9;]*m`).ReplaceAllString(string(out), "")
			if !strings.Contains(text, "service available:") || regexp.MustCompile(`service available:\s+NO`).MatchString(text) {
				t.Errorf("%s: it was not there for others, or the tool did not run:\n%s", name, text)
			}
		})
	}
	over := make(chan struct{})
	go func() {
		wg.Wait()
		close(over)
	}()
	defer func() { <-over }()
	asked := 0
	for running := true; running; asked++ {
		if a := get(t, s.http, "http://demo.localhost/"); a.code != 200 {
			t.Fatalf("request %d: %d", asked, a.code)
		}
		select {
		case <-over:
			running = false
		case <-time.After(20 * time.Millisecond): // a visitor now and then
		}
	}
	t.Logf("%d requests were answered meanwhile", asked)
	s.stop()
	if code := s.exit(t); code != exitOK {
		t.Errorf("exit code %d\n%s", code, s.stderr.String())
	}
}
