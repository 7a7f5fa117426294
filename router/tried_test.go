package router

import "testing"

func TestTried(t *testing.T) {
	var tried Tried
	var endpoints [maxTried + 2]Endpoint
	if tried.Has(&endpoints[0]) || tried.Len() != 0 {
		t.Error("an empty set has something")
	}
	tried.Add(&endpoints[0])
	tried.Add(&endpoints[0])
	if !tried.Has(&endpoints[0]) || tried.Has(&endpoints[1]) || tried.Len() != 1 {
		t.Errorf("after one endpoint twice: %d in it", tried.Len())
	}
	for i := range endpoints {
		tried.Add(&endpoints[i])
	}
	if tried.Len() != maxTried || tried.Has(&endpoints[0]) || !tried.Has(&endpoints[len(endpoints)-1]) {
		t.Error("the oldest should be forgotten, not the newest")
	}
}

func TestTriedNilIsEmpty(t *testing.T) {
	var tried *Tried
	if tried.Has(&Endpoint{}) || tried.Len() != 0 {
		t.Error("nil has something")
	}
}
