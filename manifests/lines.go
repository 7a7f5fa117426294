package manifests

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// lineOfPath finds the line of doc that holds a field, given as a path like
// "spec.rules[0].host". If there is none, it is the line of the nearest field above it.
func lineOfPath(doc document, path string) int {
	text := doc.text
	if doc.json { // which is YAML, but for tabs
		text = bytes.ReplaceAll(text, []byte("\t"), []byte(" "))
	}
	var root yaml.Node
	if yaml.Unmarshal(text, &root) != nil || len(root.Content) == 0 {
		return doc.line
	}
	node, line := root.Content[0], root.Content[0].Line
	for path != "" {
		key, value, rest := child(node, path)
		if value == nil {
			break
		}
		node, line, path = value, key.Line, rest
	}
	return doc.line + line - 1
}

// child gives the node that the first step of path leads to, the node where that begins for a
// reader, and the rest of the path. A key may have dots in it.
func child(n *yaml.Node, path string) (key, value *yaml.Node, rest string) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			rest, ok := strings.CutPrefix(path, n.Content[i].Value)
			if ok && (rest == "" || rest[0] == '.' || rest[0] == '[') {
				return n.Content[i], n.Content[i+1], strings.TrimPrefix(rest, ".")
			}
		}
	case yaml.SequenceNode:
		index, rest, _ := strings.Cut(strings.TrimPrefix(path, "["), "]")
		if i, err := strconv.Atoi(index); err == nil && i >= 0 && i < len(n.Content) {
			return n.Content[i], n.Content[i], strings.TrimPrefix(rest, ".")
		}
	}
	return nil, nil, ""
}

// pathAt gives the path of the JSON value that ends at or around offset.
func pathAt(data []byte, offset int64) string {
	w := jsonWalk{d: json.NewDecoder(bytes.NewReader(data)), offset: offset}
	path, _ := w.value("")
	return path
}

type jsonWalk struct {
	d      *json.Decoder
	offset int64
}

// value reads one value at path; found is the path of what lies at the offset.
func (w *jsonWalk) value(path string) (found string, ok bool) {
	t, err := w.d.Token()
	if err != nil || w.d.InputOffset() >= w.offset {
		return path, true
	}
	switch t {
	case json.Delim('{'):
		for w.d.More() {
			name, err := w.d.Token()
			if err != nil {
				return path, true
			}
			if found, ok := w.value(join(path, fmt.Sprint(name))); ok {
				return found, true
			}
		}
	case json.Delim('['):
		for i := 0; w.d.More(); i++ {
			if found, ok := w.value(fmt.Sprintf("%s[%d]", path, i)); ok {
				return found, true
			}
		}
	default:
		return path, false
	}
	_, err = w.d.Token() // the end of it
	return path, err != nil
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// yamlErrorLine is how the parser tells where an error is.
var yamlErrorLine = regexp.MustCompile(`line (\d+): `)

// yamlError turns an error of the YAML parser, whose lines count from the beginning of the
// document, into one whose lines count from the beginning of the file.
func yamlError(doc document, err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	text = strings.TrimPrefix(text, "unmarshal errors:\n  ")
	text, _, _ = strings.Cut(text, "\n")
	line := doc.line
	if m := yamlErrorLine.FindStringSubmatch(text); m != nil {
		n, _ := strconv.Atoi(m[1])
		line += n - 1
		text = strings.Replace(text, m[0], "", 1)
	}
	return &lineError{line: line, err: errors.New(text)}
}

// maxExpanded is how many bytes of strings a document may have after its aliases are
// replaced by what they stand for.
const maxExpanded = 4 * maxFileBytes

// checkAliases refuses documents that are small and unfold to something huge. The parser's
// own guard counts nodes, not bytes.
func checkAliases(doc document) error {
	if !bytes.ContainsRune(doc.text, '&') || !bytes.ContainsRune(doc.text, '*') {
		return nil
	}
	var root yaml.Node
	if err := yaml.Unmarshal(doc.text, &root); err != nil {
		return yamlError(doc, err)
	}
	e := expansion{sizes: map[*yaml.Node]int{}}
	if e.size(&root) > maxExpanded {
		return &lineError{line: doc.line, err: errors.New("aliases make this document too large")}
	}
	return nil
}

type expansion struct {
	sizes map[*yaml.Node]int // of anchors; negative while one is being counted
}

func (e *expansion) size(n *yaml.Node) int {
	if n.Kind == yaml.AliasNode {
		return e.anchor(n.Alias)
	}
	if n.Anchor != "" {
		return e.anchor(n)
	}
	return e.content(n)
}

func (e *expansion) anchor(n *yaml.Node) int {
	size, ok := e.sizes[n]
	switch {
	case ok && size < 0:
		return maxExpanded + 1 // contains itself
	case ok:
		return size
	}
	e.sizes[n] = -1
	size = e.content(n)
	e.sizes[n] = size
	return size
}

func (e *expansion) content(n *yaml.Node) int {
	size := len(n.Value) + 1
	for _, c := range n.Content {
		size = min(size+e.size(c), maxExpanded+1)
	}
	return size
}
