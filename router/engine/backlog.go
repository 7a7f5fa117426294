package engine

import "sync"

// backlog is what has been read of an answer and its client has not taken yet
// (Exchange.BufferAnswer): a bounded queue. One goroutine puts in, and one at a time, which
// exists only while there is something, writes it to the client.
type backlog struct {
	mu       sync.Mutex
	changed  sync.Cond
	queue    bodyQueue
	most     int64 // that may be held
	held     int64 // what is just being written included
	budget   *budget
	borrowed int64    // of it
	writing  bool     // one is at it, and has the client's writing half
	over     bool     // nothing more is put in: what ends the answer flushes, too
	err      error    // why the client takes no more
	source   upstream // who is read from, and has to know that; nil: nobody
}

// minBacklog is what is held at least: a page, for less is not worth its handing over.
const minBacklog = 4 << 10

// open makes it ready for another answer.
func (b *backlog) open(most int64, source upstream, budget *budget) {
	b.changed.L = &b.mu
	b.mu.Lock()
	b.most, b.source, b.budget = max(most, minBacklog), source, budget
	b.mu.Unlock()
}

// abandon ends it wherever it is.
func (b *backlog) abandon() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = errPanic
	for b.writing {
		b.changed.Wait()
	}
	_ = b.close() // there is nobody to tell
}

// close forgets all there is, and returns why the client does not have it. Nobody writes any more.
func (b *backlog) close() error {
	err := b.err
	b.queue.release()
	b.giveBack()
	b.held, b.over, b.err, b.source = 0, false, nil, nil
	return err
}

// put takes as much of piece as there is room for, within the bound and the budget. It is
// called with mu, as all that follows but for the questions.
func (b *backlog) put(piece []byte) int {
	n := min(int64(len(piece)), b.most-b.held, pieceBufferSize)
	for b.borrowed < b.held+n {
		if !b.budget.borrow(pieceBufferSize) {
			n = b.borrowed - b.held
			break
		}
		b.borrowed += pieceBufferSize
	}
	b.queue.write(piece[:n])
	b.held += n
	return int(n)
}

// idle reports that nothing is held, and nobody writes.
func (b *backlog) idle() bool { return !b.writing && b.queue.empty() }

// roomy reports whether so much can be put in that reading for it is worth it.
func (b *backlog) roomy() bool { return b.most-b.held >= min((b.most+1)/2, bodyBufferSize) }

// wrote notes how writing n bytes has ended.
func (b *backlog) wrote(n int, err error) {
	b.held -= int64(n)
	if err != nil {
		b.err = err
	}
	b.changed.Broadcast()
}

// rest is called by one who has written all, or failed.
func (b *backlog) rest() {
	b.writing = false
	if b.queue.empty() {
		b.giveBack()
	}
	if b.err != nil && b.source != nil {
		b.source.interrupt()
	}
	b.changed.Broadcast()
}

func (b *backlog) giveBack() {
	if b.borrowed > 0 {
		b.budget.giveBack(b.borrowed)
		b.borrowed = 0
	}
}

// part forgets whom it was read from: somebody else may have the connection next.
func (b *backlog) part() {
	b.mu.Lock()
	b.source = nil
	b.mu.Unlock()
}

// running reports whether the client's writing half is somebody else's just now. Nil is nobody.
func (b *backlog) running() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.writing
}

// failed reports that the client takes no more.
func (b *backlog) failed() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err != nil
}
