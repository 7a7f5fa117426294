package router

import (
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/portico-ingress/portico/router/engine"
)

// MaxHashParts bounds what one HashBy puts together.
const MaxHashParts = 4

// HashBy is the key of a request for ConsistentHash: its parts, one after the other. It is
// comparable; parts of kind HashNothing are left out.
type HashBy [MaxHashParts]HashPart

// HashPart is one part of a key.
type HashPart struct {
	Kind HashKind
	// Name is that of the header field, cookie or argument, or the text of HashText.
	Name string
}

// HashKind says where a part of a key comes from.
type HashKind uint8

const (
	// HashNothing is no part.
	HashNothing HashKind = iota
	// HashText is the same for all requests.
	HashText
	// HashClient is the address of the client.
	HashClient
	// HashHost is the host without its port.
	HashHost
	// HashURI is the path in normal form with the query.
	HashURI
	// HashPath is the path in normal form.
	HashPath
	// HashQuery is the query, without the question mark.
	HashQuery
	// HashHeader is the first header field of that name, as the client sent it.
	HashHeader
	// HashCookie is a cookie.
	HashCookie
	// HashArgument is an argument of the query, not unescaped.
	HashArgument
)

var hashNames = [...]string{
	HashNothing: "", HashText: "", HashClient: "$remote_addr", HashHost: "$host", HashURI: "$request_uri",
	HashPath: "$uri", HashQuery: "$args", HashHeader: "$http_", HashCookie: "$cookie_", HashArgument: "$arg_",
}

// String writes the key as nginx does.
func (h HashBy) String() string {
	var b strings.Builder
	for _, p := range h {
		b.WriteString(hashNames[p.Kind] + p.Name)
	}
	return b.String()
}

// key hashes what the request has for the parts. It is not keyed if that is nothing. The
// buffer is used and returned.
func (h *HashBy) key(x *engine.Exchange, client, buf []byte) (key uint64, keyed bool, used []byte) {
	buf = buf[:0]
	for i := range h {
		p := &h[i]
		value := p.of(x, client)
		keyed = keyed || len(value) > 0 && p.Kind != HashText
		buf = append(buf, value...)
		if p.Kind == HashURI && x.Request.HasQuery {
			buf = append(append(buf, '?'), x.Request.Query...)
		}
		buf = append(buf, 0) // so that "ab"+"c" is not "a"+"bc"
	}
	return xxhash.Sum64(buf), keyed, buf
}

func (p *HashPart) of(x *engine.Exchange, client []byte) []byte {
	r := &x.Request
	switch p.Kind {
	case HashClient:
		return client
	case HashHost:
		return r.Host
	case HashURI, HashPath:
		return r.Path
	case HashQuery:
		return r.Query
	case HashHeader:
		return r.Fields.Lookup(p.Name)
	case HashCookie:
		return cookieOf(&r.Fields, p.Name)
	case HashArgument:
		return argumentOf(r.Query, p.Name)
	}
	return nil
}

// cookieOf is the value of the first cookie of that name (RFC 6265 section 5.4), or nil.
// Names are compared byte by byte.
func cookieOf(f *engine.Fields, name string) []byte {
	for field := range f.All() {
		if !fold(field.Name, "cookie") {
			continue
		}
		if value := cookieIn(field.Value, name); value != nil {
			return value
		}
	}
	return nil
}

func cookieIn(line []byte, name string) []byte {
	for rest := line; len(rest) > 0; {
		var pair []byte
		pair, rest = cut(rest, ';')
		if key, value := cut(trimSpace(pair), '='); string(key) == name && value != nil {
			return value
		}
	}
	return nil
}

// argumentOf is the value of the first argument of that name in a query, or nil.
func argumentOf(query []byte, name string) []byte {
	for rest := query; len(rest) > 0; {
		var pair []byte
		pair, rest = cut(rest, '&')
		if key, value := cut(pair, '='); string(key) == name {
			return value
		}
	}
	return nil
}
