package manifests

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// eventually Takes from the Store, each time it says so, until want is content.
func eventually(t *testing.T, s *Store, what string, want func(Change) bool) Change {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		if c, ok := s.Take(); ok && want(c) {
			return c
		}
		select {
		case <-s.Changed():
		case <-deadline:
			c, ok := s.Take()
			t.Fatalf("%s: did not happen; open %v, problems %v, pending %v", what, ok, s.Problems(), c.Pending)
		}
	}
}
