// Package filter holds what a route may do to a request and its answer: one feature a
// file, each written against engine.Exchange alone. A filter is prepared once, when its
// route is compiled, and then used by many requests at the same time.
package filter
