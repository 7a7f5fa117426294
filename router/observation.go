package router

import "time"

// Method is a request method as it is counted: the usual ones, and all others as one, so
// that clients cannot make up new counters.
type Method uint8

// The methods that are counted apart.
const (
	MethodOther Method = iota
	MethodGet
	MethodHead
	MethodPost
	MethodPut
	MethodPatch
	MethodDelete
	MethodOptions
	Methods // the number of them
)

var methodNames = [Methods]string{
	"other", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS",
}

// String is the method as requests spell it, or "other".
func (m Method) String() string {
	return methodNames[m.known()]
}

func (m Method) known() Method {
	if m >= Methods {
		return MethodOther
	}
	return m
}

// MethodOf returns the Method of a request's method, which is case-sensitive.
func MethodOf(name []byte) Method {
	switch string(name) {
	case "GET":
		return MethodGet
	case "HEAD":
		return MethodHead
	case "POST":
		return MethodPost
	case "PUT":
		return MethodPut
	case "PATCH":
		return MethodPatch
	case "DELETE":
		return MethodDelete
	case "OPTIONS":
		return MethodOptions
	}
	return MethodOther
}

// Classes is the number of status classes: 1 to 5, and 0 for a client that went away
// before it had an answer.
const Classes = 6

// ClassOf is the class of a status: its first digit, or 0.
func ClassOf(status int) int {
	if status < 100 || status > 599 {
		return 0
	}
	return status / 100
}

// Fault is the way in which a try at an upstream failed.
type Fault uint8

// The faults that are counted apart.
const (
	FaultConnect  Fault = iota // no connection could be made
	FaultTimeout               // the upstream took too long
	FaultReset                 // the connection ended too early
	FaultProtocol              // what came was not the protocol
	Faults                     // the number of them
)

var faultNames = [Faults]string{"connect", "timeout", "reset", "protocol"}

// String is the fault as a metric label has it.
func (f Fault) String() string {
	if f >= Faults {
		return "unknown"
	}
	return faultNames[f]
}

// Observation is what is counted of one request, once it is over.
type Observation struct {
	Method Method
	// Status is what the client was answered; 0: it went away before.
	Status int
	// Duration is from the request's first byte to the end of the answer.
	Duration time.Duration
	// RequestBytes and ResponseBytes are what the client sent and got.
	RequestBytes, ResponseBytes int64
	// Tries is how often the request was sent to an endpoint; those after the first are
	// counted as retries too.
	Tries int
	// Upstream is from the start of the last try to the head of its answer; 0: none came.
	Upstream time.Duration
	// Faults counts the tries that failed, by their Fault.
	Faults [Faults]uint8
}
