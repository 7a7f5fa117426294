package engine

import "net/http"

// StatusText returns the reason phrase of a status, or "".
func StatusText(status int) string {
	if status == StatusClientGone {
		return "Client Closed Request"
	}
	return http.StatusText(status)
}

// StatusClientGone is what nginx logs for a request whose client did not wait for the
// answer. It is never sent.
const StatusClientGone = 499
