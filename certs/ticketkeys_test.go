package certs

import (
	"crypto/tls"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTicketKeysAreKeptAsTheyAre(t *testing.T) {
	t.Parallel()
	k := NewTicketKeys(time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC))
	got, err := ParseTicketKeys(k.Data())
	if diff := cmp.Diff(k, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	for name, change := range map[string]func(map[string][]byte){
		"nothing":      func(d map[string][]byte) { clear(d) },
		"short":        func(d map[string][]byte) { d["next"] = d["next"][1:] },
		"long":         func(d map[string][]byte) { d["current"] = append(d["current"], 0) },
		"two the same": func(d map[string][]byte) { d["previous"] = d["current"] },
		"no time":      func(d map[string][]byte) { d["rotated"] = []byte("yesterday") },
	} {
		data := k.Data()
		change(data)
		if got, err := ParseTicketKeys(data); err == nil || got != (TicketKeys{}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// Sessions begun at one server resume at another one with the same keys, also where one of the
// two has not heard of a rotation yet, and not after the second rotation.
func TestServersShareSessions(t *testing.T) {
	t.Parallel()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		one, two := liveWith(newCert(t, "ns/tls", KeyECDSA, "a.example")), new(Live)
		two.Store(one.Load())
		atOne, _ := echo(t, one.TLSConfig())
		keys := NewTicketKeys(time.Now())
		one.SetTicketKeys(keys)
		two.SetTicketKeys(keys) // before its listener
		atTwo, _ := echo(t, two.TLSConfig())
		cache := new(oneTicket)
		resumes := func(addr string) bool {
			c := mustDial(t, addr, "a.example", func(c *tls.Config) { c.MaxVersion, c.ClientSessionCache = version, cache })
			say(t, c, "hello")
			return c.ConnectionState().DidResume
		}
		for i, step := range []struct {
			one, two int // rotations since the beginning
			addr     string
			want     bool
		}{
			{0, 0, atOne, false},
			{0, 0, atTwo, true},
			{1, 0, atOne, true},
			{1, 0, atTwo, true}, // sealed with what is the next key there
			{1, 1, atTwo, true},
			{2, 1, atOne, true},
			{2, 2, atTwo, true},
		} {
			rotated := func(n int) TicketKeys {
				k := keys
				for range n {
					k = chain(k)
				}
				return k
			}
			one.SetTicketKeys(rotated(step.one))
			two.SetTicketKeys(rotated(step.two))
			if got := resumes(step.addr); got != step.want {
				t.Errorf("%s, step %d: resumed %v, want %v", tls.VersionName(version), i, got, step.want)
			}
		}
		kept := *cache // sealed with the key of two rotations
		two.SetTicketKeys(chain(chain(chain(keys))))
		if !resumes(atTwo) {
			t.Errorf("%s: a ticket did not live for a rotation", tls.VersionName(version))
		}
		*cache = kept
		two.SetTicketKeys(chain(chain(chain(chain(keys)))))
		if resumes(atTwo) {
			t.Errorf("%s: a ticket outlived two rotations", tls.VersionName(version))
		}
	}
}

var chained = map[TicketKeys]TicketKeys{}

// chain rotates, to the same keys each time.
func chain(k TicketKeys) TicketKeys {
	next, ok := chained[k]
	if !ok {
		next = k.Rotate(k.Rotated.Add(TicketKeyRotation))
		chained[k] = next
	}
	return next
}

// BenchmarkHandshakeResumed is what a session saves, client included.
func BenchmarkHandshakeResumed(b *testing.B) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		live := liveWith(newCert(b, "ns/tls", KeyECDSA, "a.example"))
		live.SetTicketKeys(NewTicketKeys(time.Now()))
		addr, _ := echo(b, live.TLSConfig())
		for _, resumed := range []bool{false, true} {
			name := tls.VersionName(version) + "/full"
			cache := tls.ClientSessionCache(nil)
			if resumed {
				name = tls.VersionName(version) + "/resumed"
				cache = tls.NewLRUClientSessionCache(1)
			}
			change := func(c *tls.Config) { c.MaxVersion, c.ClientSessionCache = version, cache }
			b.Run(name, func(b *testing.B) {
				for b.Loop() {
					c, err := dial(b, addr, "a.example", change)
					if err != nil {
						b.Fatal(err)
					}
					say(b, c, "x")
					c.Close()
				}
			})
		}
	}
}
