package engine

import (
	"encoding/binary"
	"errors"
	"slices"
)

// A clientHello is what is read of the first message of a TLS handshake (RFC 8446 section
// 4.1.2, RFC 6066 section 3, RFC 7301 section 3.1) by one who does not take part in it. Its
// members are slices of the message.
type clientHello struct {
	serverName []byte // as the client spelled it; nil if it named none
	protocols  []byte // the ALPN list, each name with its length before it; nil if there is none
}

var (
	errNotTLS    = errors.New("clienthello: not a TLS handshake")
	errHello     = errors.New("clienthello: malformed")
	errHelloSize = errors.New("clienthello: larger than the limit")
)

// maxClientHello bounds what is read of a client before its name is known: crypto/tls takes
// messages of 64 KiB.
const maxClientHello = 64 << 10

// maxHelloRecords bounds the work of looking again after each read: nobody honest needs more
// than a few.
const maxHelloRecords = 64

const (
	recordHandshake = 22
	recordHeader    = 5
	maxRecord       = 16 << 10
	messageHeader   = 4
	typeClientHello = 1
	extensionName   = 0
	extensionALPN   = 16
	nameTypeHost    = 0
)

// parseRecords reads a ClientHello out of the TLS records that b begins with. complete is
// false while more has to come. A message that came in one record is read where it lies; one
// that came in several is put together in a buffer of its own.
func parseRecords(b []byte) (h clientHello, complete bool, err error) {
	var message []byte // as far as it is there
	rest := b
	for i := range maxHelloRecords {
		if len(rest) > 0 && rest[0] != recordHandshake || len(rest) > 1 && rest[1] != 3 {
			return h, false, errNotTLS
		}
		if len(rest) < recordHeader {
			return h, false, nil
		}
		size := int(binary.BigEndian.Uint16(rest[3:]))
		if size == 0 || size > maxRecord {
			return h, false, errNotTLS
		}
		part := rest[recordHeader:min(len(rest), recordHeader+size)]
		if i == 0 {
			message = slices.Clip(part)
		} else {
			message = append(message, part...)
		}
		whole, err := messageSize(message)
		switch {
		case err != nil:
			return h, false, err
		case whole > 0 && len(message) >= whole:
			h, err = parseClientHello(message[messageHeader:whole])
			return h, err == nil, err
		case len(part) < size:
			return h, false, nil
		}
		rest = rest[recordHeader+size:]
	}
	return h, false, errHelloSize
}

// messageSize is the size of a ClientHello that begins like this, its header included; 0 if
// that cannot be known yet.
func messageSize(b []byte) (int, error) {
	if len(b) > 0 && b[0] != typeClientHello {
		return 0, errNotTLS
	}
	if len(b) < messageHeader {
		return 0, nil
	}
	size := int(b[1])<<16 | int(b[2])<<8 | int(b[3])
	if size > maxClientHello-messageHeader {
		return 0, errHelloSize
	}
	return messageHeader + size, nil
}

// A helloReader cuts a message up. Once something was missing, ok is false and all that is read
// is empty.
type helloReader struct {
	b  []byte
	ok bool
}

func (r *helloReader) take(n int) []byte {
	if !r.ok || len(r.b) < n {
		r.ok = false
		return nil
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

// number reads an integer of n bytes.
func (r *helloReader) number(n int) int {
	v := 0
	for _, c := range r.take(n) {
		v = v<<8 | int(c)
	}
	return v
}

// vector reads what stands after its own length, which takes n bytes.
func (r *helloReader) vector(n int) []byte { return r.take(r.number(n)) }

func parseClientHello(b []byte) (h clientHello, err error) {
	r := helloReader{b, true}
	r.take(2 + 32) // version, random
	r.vector(1)    // session
	suites := r.vector(2)
	r.vector(1) // compressions
	if !r.ok || len(suites)%2 != 0 {
		return h, errHello
	}
	if len(r.b) == 0 { // as before there were extensions
		return h, nil
	}
	extensions := r.vector(2)
	if !r.ok || len(r.b) > 0 {
		return h, errHello
	}
	return h, h.readExtensions(extensions)
}

// readExtensions takes the two that matter, and walks over the rest: those of GREASE (RFC
// 8701) and of an encrypted ClientHello, whose outer name is the one to go by.
func (h *clientHello) readExtensions(b []byte) error {
	r := helloReader{b, true}
	var named, offered bool
	for len(r.b) > 0 {
		kind := r.number(2)
		data := r.vector(2)
		if !r.ok {
			return errHello
		}
		ok := true
		switch kind {
		case extensionName:
			ok = !named && h.readName(data)
			named = true
		case extensionALPN:
			ok = !offered && h.readProtocols(data)
			offered = true
		}
		if !ok {
			return errHello
		}
	}
	return nil
}

// readName takes the one host name of the list, without a dot at its end. Whether DNS could
// have such a name does not matter: nobody has a route for one that it could not.
func (h *clientHello) readName(data []byte) bool {
	r := helloReader{data, true}
	list := helloReader{r.vector(2), true}
	if !r.ok || len(r.b) > 0 || len(list.b) == 0 {
		return false
	}
	for len(list.b) > 0 {
		kind := list.number(1)
		name := list.vector(2)
		if !list.ok || len(name) == 0 {
			return false
		}
		if kind != nameTypeHost {
			continue
		}
		if h.serverName != nil || name[len(name)-1] == '.' {
			return false
		}
		h.serverName = name
	}
	return true
}

func (h *clientHello) readProtocols(data []byte) bool {
	r := helloReader{data, true}
	all := r.vector(2)
	if !r.ok || len(r.b) > 0 || len(all) == 0 {
		return false
	}
	for list := (helloReader{all, true}); len(list.b) > 0; {
		if name := list.vector(1); !list.ok || len(name) == 0 {
			return false
		}
	}
	h.protocols = all
	return true
}
