package engine

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// A Refusal says why a request is not served: the status to answer, and the reason for
// the log. The client is told the status only.
type Refusal struct { //nolint:errname // it is no failure of ours
	Status int
	Reason string
}

// Error gives status and reason.
func (r *Refusal) Error() string { return fmt.Sprintf("%d: %s", r.Status, r.Reason) }

func badRequest(reason string) *Refusal { return &Refusal{Status: 400, Reason: reason} }

// errNotHTTP is for a first line that names no version of HTTP at all.
var errNotHTTP = badRequest("no HTTP version")

// errExpectation is for an expectation that is not one 100-continue: a list of two is another one,
// whether it stands in one field or in two (RFC 9110 section 5.3).
var errExpectation = &Refusal{Status: 417, Reason: "expectation not supported"}

// Cause names what went wrong between the proxy and an upstream, or before it.
type Cause uint8

const (
	// CauseConnect means that no connection could be made. Nothing was sent.
	CauseConnect Cause = iota + 1
	// CauseWrite means that the connection failed while the request was sent.
	CauseWrite
	// CauseClosed means that the upstream closed the connection before it had answered.
	CauseClosed
	// CauseTimeout means that the upstream did not answer in time.
	CauseTimeout
	// CauseProtocol means that what the upstream sent is not an HTTP answer.
	CauseProtocol
	// CauseClientGone means that the client went away, so that there is nobody to answer.
	CauseClientGone
	// CauseDeadline means that the time for the whole exchange (Timeouts.Total) is over. There
	// is no use in another try.
	CauseDeadline
	// CauseClientBody means that the client's request body was malformed, cut short or too slow.
	CauseClientBody
	// CauseTLS means that TLS could not be agreed on, most often because the upstream's
	// certificate does not hold. Nothing of the request was sent.
	CauseTLS
)

var causeNames = [...]string{
	CauseConnect: "connect", CauseWrite: "write", CauseClosed: "closed", CauseTimeout: "timeout",
	CauseProtocol: "protocol", CauseClientGone: "client gone", CauseDeadline: "deadline", CauseClientBody: "client body",
	CauseTLS: "tls",
}

// String gives one word for logs and metrics.
func (c Cause) String() string { return causeNames[c] }

// UpstreamError is why Forward has no answer.
type UpstreamError struct {
	Cause Cause
	// Unsent: not one byte of the request has left, so that sending it elsewhere cannot do
	// anything twice.
	Unsent bool
	// Reused: the connection had served a request before. An upstream may close such a one
	// at any moment; it says nothing about the upstream's health.
	Reused bool
	Err    error
}

// Error gives cause and detail.
func (e *UpstreamError) Error() string { return fmt.Sprintf("%s: %v", e.Cause, e.Err) }

// Unwrap returns the detail.
func (e *UpstreamError) Unwrap() error { return e.Err }

var (
	errHeadTooLarge  = errors.New("head larger than the limit")
	errTooManyFields = errors.New("more fields than the limit")
	errBareLF        = errors.New("line feed without carriage return")
	errFieldLine     = errors.New("malformed field line")
	errFieldName     = errors.New("field name is not a token")
	errFieldValue    = errors.New("control character in a field value")
	errChunk         = errors.New("malformed chunked coding")
	errCutShort      = errors.New("message ended before its body was complete")
	errInterim       = errors.New("too many interim responses")
	errClientGone    = errors.New("client closed the connection")
	errHeadTimeout   = fmt.Errorf("head: %w", os.ErrDeadlineExceeded)
	errTotal         = fmt.Errorf("request: %w", os.ErrDeadlineExceeded)
	errStopped       = errors.New("not wanted any more")
	errListed        = errors.New("more names in Connection than any honest one has")
	errTarget        = errors.New("request line cannot be written")
	errUpgrade       = errors.New("not the upgrade that was asked for")
	errPanic         = errors.New("panic")
)

// isReset reports that the other side tore the connection down.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// asTimeout makes the several errors that say so errors of one kind.
func asTimeout(err error) error {
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() && !isTimeout(err) {
		return fmt.Errorf("%w: %w", os.ErrDeadlineExceeded, err)
	}
	return err
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

var (
	errLength           = errors.New("Content-Length is malformed, repeated or beside Transfer-Encoding")
	errTransferEncoding = errors.New("Transfer-Encoding is not exactly chunked, or stands beside Content-Length")
)
