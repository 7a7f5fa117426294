package router

import (
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portico-ingress/portico/router/engine"
)

// TestSlowHTTPTest has the tool of that name (Debian package slowhttptest) attack the proxy
// in each of its ways, while others go on asking. Deadlines are shorter than the defaults, so
// that the end of the slow ones is seen in the seconds that the test has.
func TestSlowHTTPTest(t *testing.T) {
	attacks := map[string][]string{
		"slow heads":  {"-H", "-i", "1"},
		"slow bodies": {"-B", "-i", "1", "-s", "8192"},
		"slow reads":  {"-X", "-w", "10", "-y", "20", "-n", "1", "-z", "5", "-k", "1"},
		"ranges":      {"-R", "-a", "5", "-b", "3000"},
	}
	for name, flags := range attacks {
		t.Run(name, func(t *testing.T) {
			b := startPlenty(t, lengthHead)
			f := setup{mute: true, limits: engine.Limits{
				HeadTimeout: 2 * time.Second, WriteTimeout: 2 * time.Second, MinRateGrace: 2 * time.Second,
			}}.start(t, b.addr)
			flags = append(flags, "-c", "200", "-r", "200", "-l", "4", "-p", "3", "-u", "http://"+f.addr+map[string]string{"slow reads": "/slow"}[name])
			if !strings.Contains(flags[len(flags)-1], "/slow") {
				flags[len(flags)-1] += "/fast"
			}
			var out []byte
			var wg sync.WaitGroup
			done := make(chan struct{})
			wg.Go(func() {
				defer close(done)
				out, _ = exec.Command("slowhttptest", flags...).CombinedOutput() // its status says how it ended
			})
			for running := true; running; {
				others(t, f)
				select {
				case <-done:
					running = false
				case <-time.After(short):
				}
			}
			wg.Wait()
			text := regexp.MustCompile(`\x1b\[[0-9;]*m`).ReplaceAllString(string(out), "")
			if !strings.Contains(text, "service available:") || regexp.MustCompile(`service available:\s+NO`).MatchString(text) {
				t.Errorf("it was not there for others, or the tool did not run:\n%s", text)
			}
			eventually(t, "the slow ones are gone", func() bool { return f.server.Stats().Open == 0 })
			if end := regexp.MustCompile(`Exit status:.*`).FindString(text); end != "" {
				t.Log(end)
			}
		})
	}
}
