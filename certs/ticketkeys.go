package certs

import (
	"crypto/rand"
	"errors"
	"fmt"
	"time"
)

// TicketKeyRotation is how long the servers that share [TicketKeys] seal tickets with one key. A ticket is
// good until the key is two rotations old: for 12 to 24 hours.
const TicketKeyRotation = 12 * time.Hour

// TicketKeySize is the size of a key in bytes.
const TicketKeySize = 32

// TicketKeys are the keys of session tickets that several servers share, so that a session begun with one
// resumes with another. Tickets are sealed with Current. All three open them: Next is known everywhere long
// before anybody seals with it.
type TicketKeys struct {
	Previous, Current, Next [TicketKeySize]byte
	// Rotated is when Current became that, by the clock of whoever did it.
	Rotated time.Time
}

// NewTicketKeys makes keys of random bytes.
func NewTicketKeys(now time.Time) TicketKeys {
	k := TicketKeys{Rotated: now}
	for _, key := range []*[TicketKeySize]byte{&k.Previous, &k.Current, &k.Next} {
		_, _ = rand.Read(key[:]) // never fails
	}
	return k
}

// Rotate gives each key the place before its own. The Previous one is forgotten.
func (k TicketKeys) Rotate(now time.Time) TicketKeys {
	next := TicketKeys{Previous: k.Current, Current: k.Next, Rotated: now}
	_, _ = rand.Read(next.Next[:]) // never fails
	return next
}

// The fields of TicketKeys where they are kept.
const (
	fieldPrevious = "previous"
	fieldCurrent  = "current"
	fieldNext     = "next"
	fieldRotated  = "rotated"
)

// Data is the form in which the keys are kept in a Secret.
func (k TicketKeys) Data() map[string][]byte {
	return map[string][]byte{
		fieldPrevious: k.Previous[:], fieldCurrent: k.Current[:], fieldNext: k.Next[:],
		fieldRotated: []byte(k.Rotated.UTC().Format(time.RFC3339)),
	}
}

// ParseTicketKeys reads what Data wrote. The error names the field, and none of its content.
func ParseTicketKeys(data map[string][]byte) (k TicketKeys, err error) {
	for _, f := range []struct {
		name string
		key  *[TicketKeySize]byte
	}{{fieldPrevious, &k.Previous}, {fieldCurrent, &k.Current}, {fieldNext, &k.Next}} {
		if n := copy(f.key[:], data[f.name]); n != TicketKeySize || len(data[f.name]) != TicketKeySize {
			return TicketKeys{}, fmt.Errorf("certs: ticket keys: %s is not of %d bytes", f.name, TicketKeySize)
		}
	}
	if k.Previous == k.Current || k.Current == k.Next || k.Next == k.Previous || k.Current == [TicketKeySize]byte{} {
		return TicketKeys{}, errors.New("certs: ticket keys: they are not three different ones")
	}
	if k.Rotated, err = time.Parse(time.RFC3339, string(data[fieldRotated])); err != nil {
		return TicketKeys{}, fmt.Errorf("certs: ticket keys: %s is not a time", fieldRotated)
	}
	return k, nil
}

// SetTicketKeys makes these the keys of session tickets, from the next handshake on.
func (l *Live) SetTicketKeys(k TicketKeys) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keys = [][TicketKeySize]byte{k.Current, k.Next, k.Previous}
	if l.config != nil {
		l.config.SetSessionTicketKeys(l.keys)
	}
}
