package router

import (
	"html"
	"strconv"

	"github.com/portico-ingress/portico/router/engine"
)

// replyError answers with a short page that names the request, in JSON or HTML as the
// client prefers, or as gRPC has it. It says nothing about the cluster.
func (p *Proxy) replyError(x *engine.Exchange, s *passage, status int) {
	if engine.IsGRPC(x.Request.Fields.Get(engine.ContentType)) {
		p.replyGRPC(x, s, status)
		return
	}
	if wantsJSON(x.Request.Fields.Get(engine.Accept)) {
		s.page = appendErrorJSON(s.page[:0], status, s.id[:])
		x.Reply(status, "application/json", s.page)
		return
	}
	s.page = appendErrorHTML(s.page[:0], status, s.id[:])
	x.Reply(status, "text/html; charset=utf-8", s.page)
}

func appendErrorJSON(b []byte, status int, id []byte) []byte {
	b = append(b, `{"status":`...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, `,"error":`...)
	b = strconv.AppendQuote(b, engine.StatusText(status))
	b = append(b, `,"requestId":"`...)
	b = append(b, id...)
	return append(b, "\"}\n"...)
}

func appendErrorHTML(b []byte, status int, id []byte) []byte {
	title := strconv.Itoa(status) + " " + html.EscapeString(engine.StatusText(status))
	b = append(b, "<!DOCTYPE html>\n<html><head><title>"...)
	b = append(b, title...)
	b = append(b, "</title></head>\n<body><h1>"...)
	b = append(b, title...)
	b = append(b, "</h1><p>Request ID: "...)
	b = append(b, id...)
	return append(b, "</p></body></html>\n"...)
}

// wantsJSON reads an Accept field as far as two choices need it (RFC 9110 section
// 12.5.1): JSON if it is named with a weight above that of HTML.
func wantsJSON(accept []byte) bool {
	jsonWeight, htmlWeight := -1, -1
	for len(accept) > 0 {
		var item []byte
		item, accept = cut(accept, ',')
		media, params := cut(item, ';')
		weight := weightOf(params)
		switch media = trimSpace(media); {
		case isJSON(media):
			jsonWeight = max(jsonWeight, weight)
		case isHTML(media):
			htmlWeight = max(htmlWeight, weight)
		}
	}
	return jsonWeight > 0 && jsonWeight > htmlWeight
}

// isJSON takes application/json and the types with its suffix (RFC 6839 section 3.1).
func isJSON(media []byte) bool {
	n := len(media)
	return fold(media, "application/json") || n > 5 && fold(media[n-5:], "+json")
}

func isHTML(media []byte) bool {
	return fold(media, "text/html") || fold(media, "application/xhtml+xml")
}

// weightOf reads ";q=0.8" in thousandths; 1000 if there is none.
func weightOf(params []byte) int {
	for len(params) > 0 {
		var p []byte
		p, params = cut(params, ';')
		p = trimSpace(p)
		if len(p) < 3 || p[0]|0x20 != 'q' || p[1] != '=' {
			continue
		}
		q, err := strconv.ParseFloat(string(p[2:]), 32)
		if err != nil || q < 0 || q > 1 {
			return 0
		}
		return int(q * 1000)
	}
	return 1000
}

func cut(b []byte, at byte) (before, after []byte) {
	for i, c := range b {
		if c == at {
			return b[:i], b[i+1:]
		}
	}
	return b, nil
}

func trimSpace(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

func fold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i := range b {
		c := b[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != s[i] {
			return false
		}
	}
	return true
}
