package announce

import "context"

type childAnnouncer struct{}
type Event struct{}

func (*childAnnouncer) run(context.Context, chan<- childEvent) error { return nil }
