package main

import "testing"

func TestTidyOnceItIsQuiet(t *testing.T) {
	var d tidier
	made := uint64(0)
	for i, step := range []struct {
		mb   uint64
		want bool
	}{
		{1, false},   // little has been made
		{200, false}, // a great change comes
		{90, false},
		{1, true}, // and is over
		{1, false},
		{0, false},
		{40, false},
		{2, false}, // not worth it
		{40, false},
		{2, true},
	} {
		made += step.mb << 20
		if got := d.due(made); got != step.want {
			t.Errorf("step %d, %d MB more: due is %v, want %v", i, step.mb, got, step.want)
		}
	}
}
