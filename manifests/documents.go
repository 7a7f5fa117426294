package manifests

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// document is one object, or one List of objects, of a file.
type document struct {
	text []byte
	line int // of the file on which text begins, from 1
	json bool
}

// splitDocuments cuts a file where YAML says that a document ends, or a JSON file after each
// value. What holds nothing but comments is no document.
func splitDocuments(name string, data []byte) ([]document, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if strings.HasSuffix(name, ".json") {
		return splitJSON(data)
	}
	return splitYAML(data), nil
}

func splitYAML(data []byte) []document {
	var docs []document
	var text []byte
	first := 1
	finish := func(next int) {
		if !blank(text) {
			docs = append(docs, document{text: text, line: first})
		}
		text, first = nil, next
	}
	line := 0
	for l := range bytes.Lines(data) {
		line++
		switch marker(l) {
		case "---":
			finish(line)
			// What follows on the line belongs to the document; columns stay as they are.
			text = append(append(text, "   "...), l[3:]...)
		case "...":
			finish(line + 1)
		default:
			text = append(text, l...)
		}
	}
	finish(0)
	return docs
}

// marker gives the document marker that l is, if it is one.
func marker(l []byte) string {
	if len(l) < 3 || len(l) > 3 && !bytes.ContainsRune([]byte(" \t\r\n"), rune(l[3])) {
		return ""
	}
	return string(l[:3])
}

// blank says whether there is nothing but comments and directives.
func blank(text []byte) bool {
	for l := range bytes.Lines(text) {
		l = bytes.TrimSpace(l)
		if len(l) > 0 && l[0] != '#' && l[0] != '%' {
			return false
		}
	}
	return true
}

func splitJSON(data []byte) ([]document, error) {
	var docs []document
	d := json.NewDecoder(bytes.NewReader(data))
	for {
		var raw json.RawMessage
		err := d.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return nil, jsonError(data, err, d.InputOffset())
		}
		start := int(d.InputOffset()) - len(raw)
		docs = append(docs, document{text: raw, line: lineAt(data, start), json: true})
	}
}

func jsonError(data []byte, err error, offset int64) error {
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		return &lineError{line: lineAt(data, int(syntax.Offset)-1), err: err}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return &lineError{line: lineAt(data, len(data)), err: errors.New("the file ends in the middle of a value")}
	}
	return &lineError{line: lineAt(data, int(offset)), err: err}
}

// lineAt gives the line, from 1, of a byte.
func lineAt(data []byte, offset int) int {
	return 1 + bytes.Count(data[:min(max(offset, 0), len(data))], []byte("\n"))
}

// lineError is what is wrong with a file, and on which of its lines.
type lineError struct {
	line int
	err  error
}

func (e *lineError) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.err) }

func (e *lineError) Unwrap() error { return e.err }
