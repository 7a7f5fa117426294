package router

// Edit makes the next Table out of one. What it does not touch is shared between the two,
// so that one change costs the same among ten Hosts and among 100,000. It is for one
// goroutine.
type Edit struct {
	next  Table // its hosts are stale until Table is called
	hosts hostMapEdit
}

// Put adds a Host, or replaces the one of the same name.
func (e *Edit) Put(h *Host) {
	e.countStream(h.name, -1)
	defer e.countStream(h.name, +1)
	if h.name == "" {
		e.next.any = h
		return
	}
	e.hosts.put(h)
}

// Remove takes the Host of that name out, if there is one.
func (e *Edit) Remove(name string) {
	e.countStream(name, -1)
	if name == "" {
		e.next.any = nil
		return
	}
	e.hosts.remove(name)
}

// countStream counts the Host of that name, if there is one and it has a Stream.
func (e *Edit) countStream(name string, n int) {
	if name == "" {
		return // it has no name that a ClientHello could have
	}
	if h := e.hosts.get(name); h != nil && h.stream != nil {
		e.next.streams += n
	}
}

// SetFallback says what answers requests that no Host answers; nil is the built-in 404.
func (e *Edit) SetFallback(r *Route) { e.next.fallback = r }

// Table returns the result, one generation on. The Edit may go on from there to the Table
// after it; it never touches one it has handed out.
func (e *Edit) Table() *Table {
	e.next.generation++
	e.next.hosts = e.hosts.freeze()
	t := e.next
	return &t
}
