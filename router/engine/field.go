package engine

import "iter"

// Field is one field line of a head or of a trailer section (RFC 9110 section 5). Name
// and Value lie in the buffer they were read into, with the spelling they came with.
type Field struct {
	Name  []byte
	Value []byte
	// ID is what Name is, if it is one of the names the engine knows; else 0.
	ID FieldID
	// dropped fields stay where they are and are not sent.
	dropped bool
}

// Fields is an ordered list of field lines. Order and spelling are kept on the way
// through. The zero value is empty. It is for one goroutine.
type Fields struct {
	list  []Field
	arena []byte // values and names that were added
}

// Reset empties the list and keeps its memory.
func (f *Fields) Reset() {
	clear(f.list) // the buffers they lie in go to others
	f.list = f.list[:0]
	f.arena = f.arena[:0]
}

// Len counts the fields that would be sent.
func (f *Fields) Len() int {
	n := 0
	for i := range f.list {
		if !f.list[i].dropped {
			n++
		}
	}
	return n
}

// All walks the fields that would be sent, in order. What it yields must not be kept, nor
// changed: Set and AddName see to it that a value cannot end its line.
func (f *Fields) All() iter.Seq[*Field] {
	return func(yield func(*Field) bool) {
		for i := range f.list {
			if !f.list[i].dropped && !yield(&f.list[i]) {
				return
			}
		}
	}
}

// Get returns the value of the first field with this id, or nil.
func (f *Fields) Get(id FieldID) []byte {
	for i := range f.list {
		if f.list[i].ID == id && !f.list[i].dropped {
			return f.list[i].Value
		}
	}
	return nil
}

// Lookup returns the value of the first field of this name in any spelling, or nil. Use
// Get for the names that have an ID.
func (f *Fields) Lookup(name string) []byte {
	for i := range f.list {
		if !f.list[i].dropped && equalFold(f.list[i].Name, name) {
			return f.list[i].Value
		}
	}
	return nil
}

// Has reports whether there is a field with this id.
func (f *Fields) Has(id FieldID) bool {
	for i := range f.list {
		if f.list[i].ID == id && !f.list[i].dropped {
			return true
		}
	}
	return false
}

// Del removes all fields with this id.
func (f *Fields) Del(id FieldID) {
	for i := range f.list {
		if f.list[i].ID == id {
			f.list[i].dropped = true
		}
	}
}

// FieldSet is a set of names that have an ID.
type FieldSet uint64

// SetOf makes a FieldSet.
func SetOf(ids ...FieldID) FieldSet {
	var s FieldSet
	for _, id := range ids {
		s |= 1 << id
	}
	return s
}

// restore undoes Del.
func (f *Fields) restore(id FieldID) {
	for i := range f.list {
		if f.list[i].ID == id {
			f.list[i].dropped = false
		}
	}
}

// DelSet removes all fields whose name is in the set, in one walk.
func (f *Fields) DelSet(s FieldSet) {
	for i := range f.list {
		if s>>f.list[i].ID&1 != 0 {
			f.list[i].dropped = true
		}
	}
}

// DelName removes all fields of this name, in any spelling.
func (f *Fields) DelName(name []byte) {
	for i := range f.list {
		if equalFoldBytes(f.list[i].Name, name) {
			f.list[i].dropped = true
		}
	}
}

// Add appends a field. The value is copied; bytes that may not stand in a field value
// (RFC 9110 section 5.5) are replaced by a space, so that nothing added can end the line.
func (f *Fields) Add(id FieldID, value []byte) {
	f.list = append(f.list, Field{Name: fieldNames[id], Value: f.keep(value), ID: id})
}

// AddString is Add for a string.
func (f *Fields) AddString(id FieldID, value string) {
	f.list = append(f.list, Field{Name: fieldNames[id], Value: keep(f, value), ID: id})
}

// Set removes all fields with this id and appends one.
func (f *Fields) Set(id FieldID, value []byte) {
	f.Del(id)
	f.Add(id, value)
}

// AddName appends a field by name. It reports false, and adds nothing, if the name is
// not a token.
func (f *Fields) AddName(name, value []byte) bool {
	if !isToken(name) {
		return false
	}
	f.list = append(f.list, Field{Name: f.keep(name), Value: f.keep(value), ID: fieldID(name)})
	return true
}

func (f *Fields) keep(b []byte) []byte { return keep(f, b) }

// keep copies b into the arena. The arena may move when it grows; what was kept before
// then goes on lying in the old one.
func keep[T []byte | string](f *Fields, b T) []byte {
	start := len(f.arena)
	f.arena = append(f.arena, b...)
	kept := f.arena[start:len(f.arena):len(f.arena)]
	if hasControl(kept) {
		for i, c := range kept {
			if isControl(c) {
				kept[i] = ' '
			}
		}
	}
	return kept
}

// add is what the parsers use: name and value lie in a buffer that outlives the list.
func (f *Fields) add(name, value []byte) *Field {
	f.list = append(f.list, Field{Name: name, Value: value, ID: fieldID(name)})
	return &f.list[len(f.list)-1]
}

// appendTo writes the fields that are to be sent, each as a line.
func (f *Fields) appendTo(dst []byte) []byte {
	for i := range f.list {
		l := &f.list[i]
		if l.dropped {
			continue
		}
		dst = append(dst, l.Name...)
		dst = append(dst, ':', ' ')
		dst = append(dst, l.Value...)
		dst = append(dst, '\r', '\n')
	}
	return dst
}

// dropHopByHop removes what concerns one connection only (RFC 9110 section 7.6.1): the
// fields that Connection lists, and those which always do. Names that would change the
// framing or the target of the message may not be listed; that they are is ignored. A list
// longer than any honest one is an error: each name in it costs a walk over all fields. mayTrail
// says what of the message's trailer section is passed on.
func (f *Fields) dropHopByHop(mayTrail func(FieldID, []byte) bool) error {
	listed := 0
	for i := range f.list {
		l := &f.list[i]
		switch l.ID {
		case Connection:
			l.dropped = true
			for token := range tokens(l.Value) {
				if listed++; listed > maxListed {
					return errListed
				}
				f.dropListed(token)
			}
		case KeepAlive, ProxyConnection, TE, TransferEncoding, Upgrade, HTTP2Settings:
			l.dropped = true
		case Trailer: // goes on, for trailer sections do, but for what is not in them
			f.pruneNames(l, mayTrail)
		}
	}
	return nil
}

// maxListed is how many names Connection may list.
const maxListed = 32

func (f *Fields) dropListed(token []byte) {
	for i := range f.list {
		switch l := &f.list[i]; l.ID {
		case Host, ContentLength:
		default:
			if equalFoldBytes(l.Name, token) {
				l.dropped = true
			}
		}
	}
}

// tokens walks the elements of a comma-separated list (RFC 9110 section 5.6.1).
func tokens(list []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(list) > 0 {
			end := 0
			for end < len(list) && list[end] != ',' {
				end++
			}
			token := trimOWS(list[:end])
			if len(token) > 0 && !yield(token) {
				return
			}
			list = list[min(end+1, len(list)):]
		}
	}
}

func hasTokenBytes(list, token []byte) bool {
	for t := range tokens(list) {
		if equalFoldBytes(t, token) {
			return true
		}
	}
	return false
}

// hasToken reports whether a list holds token, in any case.
func hasToken(list []byte, token string) bool {
	for t := range tokens(list) {
		if equalFold(t, token) {
			return true
		}
	}
	return false
}
