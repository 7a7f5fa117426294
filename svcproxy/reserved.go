package svcproxy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// reservedPortsFile lists the ports that no program is given for an outgoing connection. A
// connection from a port of the NodePort range would get answers that belong to a Service. It
// is of the network namespace of whoever opens it.
const reservedPortsFile = "/proc/sys/net/ipv4/ip_local_reserved_ports"

// mountedPortsFile is the same file of the node, where a container has it mounted: its own /proc/sys
// is read-only, and nothing can be mounted there.
const mountedPortsFile = "/host" + reservedPortsFile

// PortRange is from First to Last, both included.
type PortRange struct{ First, Last uint16 }

// ParsePortRange reads "30000-32767", or one port.
func ParsePortRange(text string) (PortRange, error) {
	first, last, ok := strings.Cut(strings.TrimSpace(text), "-")
	if !ok {
		last = first
	}
	a, errA := strconv.ParseUint(first, 10, 16)
	b, errB := strconv.ParseUint(last, 10, 16)
	if errA != nil || errB != nil || a == 0 || a > b {
		return PortRange{}, fmt.Errorf(`want ports like "30000-32767"`)
	}
	return PortRange{uint16(a), uint16(b)}, nil
}

// String is as ParsePortRange reads it.
func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// ReservePorts keeps a range from being used for outgoing connections, besides what is reserved
// already.
func ReservePorts(r PortRange) error {
	_, err := changeReserved(func(all []PortRange) []PortRange { return append(all, r) })
	return err
}

// ReleasePorts undoes ReservePorts; other ranges stay. Who else had reserved some of the range the kernel does not know,
// so it gives what there was and what there is, for people, or "" if there was nothing.
func ReleasePorts(r PortRange) (said string, err error) {
	return changeReserved(func(all []PortRange) []PortRange {
		var kept []PortRange
		for _, o := range all {
			if o.First < r.First {
				kept = append(kept, PortRange{o.First, min(o.Last, r.First-1)})
			}
			if o.Last > r.Last {
				kept = append(kept, PortRange{max(o.First, r.Last+1), o.Last})
			}
		}
		return kept
	})
}

func changeReserved(change func([]PortRange) []PortRange) (said string, err error) {
	text, err := os.ReadFile(reservedPortsFile)
	if err != nil {
		return "", fmt.Errorf("reserved ports: %w", err)
	}
	all, err := parseReserved(string(text))
	if err != nil {
		return "", err
	}
	before, next := formatReserved(slices.Clone(all)), formatReserved(change(slices.Clone(all)))
	if next == before {
		return "", nil
	}
	err = writeReserved(reservedPortsFile, next)
	if errors.Is(err, unix.EROFS) {
		if mounted := writeReserved(mountedPortsFile, next); !errors.Is(mounted, fs.ErrNotExist) {
			err = mounted
		}
	}
	if err != nil {
		return "", fmt.Errorf("reserved ports: %w", err)
	}
	return fmt.Sprintf("net.ipv4.ip_local_reserved_ports was %q and is %q now", before, next), nil
}

// writeReserved never makes the file: there is one, or it is no sysctl.
func writeReserved(file, text string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text + "\n")
	return errors.Join(err, f.Close())
}

func parseReserved(text string) (all []PortRange, err error) {
	for word := range strings.SplitSeq(strings.TrimSpace(text), ",") {
		if word == "" {
			continue
		}
		r, err := ParsePortRange(word)
		if err != nil {
			return nil, fmt.Errorf("reserved ports: %q: %w", word, err)
		}
		all = append(all, r)
	}
	return all, nil
}

// formatReserved merges what touches.
func formatReserved(all []PortRange) string {
	slices.SortFunc(all, func(a, b PortRange) int { return int(a.First) - int(b.First) })
	var merged []PortRange
	for _, r := range all {
		if n := len(merged); n > 0 && int(r.First) <= int(merged[n-1].Last)+1 {
			merged[n-1].Last = max(merged[n-1].Last, r.Last)
			continue
		}
		merged = append(merged, r)
	}
	words := make([]string, len(merged))
	for i, r := range merged {
		words[i] = r.String()
	}
	return strings.Join(words, ",")
}
