package engine

import "testing"

func TestBacklogKeepsToItsBoundAndTheBudget(t *testing.T) {
	tests := map[string]struct {
		most, budget int64
		size, want   int
	}{
		"as much as there is":          {64 << 10, 1 << 20, 20000, 20000},
		"at the bound":                 {5000, 1 << 20, 20000, 5000},
		"at the bound, over buffers":   {40000, 1 << 20, 100000, 40000},
		"never less than a page":       {1, 1 << 20, 20000, minBacklog},
		"in whole pieces of a budget":  {1 << 20, 40000, 100000, 2 * pieceBufferSize},
		"a budget that is used up":     {1 << 20, pieceBufferSize - 1, 100000, 0},
		"an empty piece takes nothing": {1 << 20, 1 << 20, 0, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			budget := &budget{most: tt.budget}
			b := new(backlog)
			b.open(tt.most, nil, budget)
			b.mu.Lock()
			defer b.mu.Unlock()
			piece := make([]byte, tt.size)
			for i := range piece {
				piece[i] = byte(i % 251)
			}
			put := 0
			for n := -1; n != 0 && put < tt.size; put += n {
				n = b.put(piece[put:])
			}
			if put != tt.want || b.held != int64(put) || budget.used.Load() < int64(put) {
				t.Errorf("put %d, want %d; held %d, borrowed %d", put, tt.want, b.held, budget.used.Load())
			}
			got := 0
			for !b.queue.empty() {
				buf, r, w := b.queue.take()
				for i := r; i < w; i++ {
					if buf[i] != byte(got%251) {
						t.Fatalf("byte %d is another", got)
					}
					got++
				}
				putBuffer(buf)
				b.wrote(w-r, nil)
			}
			if got != put || b.held != 0 {
				t.Errorf("%d bytes came out; held %d", got, b.held)
			}
			if b.rest(); budget.used.Load() != 0 {
				t.Errorf("%d are borrowed for nothing", budget.used.Load())
			}
		})
	}
}
