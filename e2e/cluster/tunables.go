package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

// tunables are settings of the whole machine that a kubelet sets to its liking.
// They are put back when the cluster is gone.
var tunables = []string{
	"vm/overcommit_memory",
	"vm/panic_on_oom",
	"kernel/panic",
	"kernel/panic_on_oops",
	"kernel/keys/root_maxkeys",
	"kernel/keys/root_maxbytes",
}

func (c *Config) tunablesFile() string { return c.file("run", "tunables.json") }

func (c *Config) saveTunables() error {
	saved := map[string]string{}
	for _, t := range tunables {
		b, err := os.ReadFile("/proc/sys/" + t)
		if err != nil {
			continue // a kernel without it has nothing to put back
		}
		saved[t] = strings.TrimSpace(string(b))
	}
	b, err := json.Marshal(saved)
	if err != nil {
		return fmt.Errorf("encode kernel settings: %w", err)
	}
	if err := os.WriteFile(c.tunablesFile(), b, 0o644); err != nil {
		return fmt.Errorf("save kernel settings: %w", err)
	}
	return nil
}

func (c *Config) restoreTunables() error {
	b, err := os.ReadFile(c.tunablesFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	saved := map[string]string{}
	if err == nil {
		err = json.Unmarshal(b, &saved)
	}
	if err != nil {
		return fmt.Errorf("read kernel settings: %w", err)
	}
	for t, value := range saved {
		now, err := os.ReadFile("/proc/sys/" + t)
		if err != nil || strings.TrimSpace(string(now)) == value {
			continue
		}
		if err := os.WriteFile("/proc/sys/"+t, []byte(value), 0o644); err != nil {
			return fmt.Errorf("put %s back: %w", t, err)
		}
	}
	return nil
}
