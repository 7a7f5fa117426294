package engine

import "sync/atomic"

// budget bounds the bytes that all exchanges of a server together hold of bodies. Those for
// whom there is none left go on without: they stream.
type budget struct {
	most int64
	used atomic.Int64
}

// borrow takes n bytes of it, if they are there.
func (b *budget) borrow(n int64) bool {
	if b.used.Add(n) > b.most {
		b.used.Add(-n)
		return false
	}
	return true
}

func (b *budget) giveBack(n int64) { b.used.Add(-n) }
