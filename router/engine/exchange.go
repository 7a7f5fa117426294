// Package engine speaks HTTP. (skeleton; the lead writes it)
package engine

// Exchange is one request and its answer.
type Exchange struct{}
