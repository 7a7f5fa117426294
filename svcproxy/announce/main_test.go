package announce

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// A node of a test is this same program in a network namespace of its own.
func TestMain(m *testing.M) {
	if config := os.Getenv(childVar); config != "" {
		os.Exit(runChild(config))
	}
	goleak.VerifyTestMain(m)
}
