package annotation

import (
	"errors"
	"strconv"
	"time"
)

// The time-outs of a request. Values are whole seconds, as ingress-nginx has them, or a
// number with a unit, as "1500ms" or "2m".

// proxyConnectTimeout is nginx's proxy_connect_timeout.
var proxyConnectTimeout = Annotation{
	Keys:     []string{Prefix + "proxy-connect-timeout", NginxPrefix + "proxy-connect-timeout"},
	Help:     "How long connecting to an endpoint may take; then another one is tried, or the answer is 504.",
	Default:  "5",
	Phase:    PhaseUpstream,
	Validate: validateTimeout,
	Apply:    func(value string, o *Options) { o.ConnectTimeout = parseTimeout(value) },
}

// proxySendTimeout is nginx's proxy_send_timeout.
var proxySendTimeout = Annotation{
	Keys:     []string{Prefix + "proxy-send-timeout", NginxPrefix + "proxy-send-timeout"},
	Help:     "How long an endpoint may take nothing of a request before the answer is 504.",
	Default:  "60",
	Phase:    PhaseUpstream,
	Validate: validateTimeout,
	Apply:    func(value string, o *Options) { o.SendTimeout = parseTimeout(value) },
}

// proxyReadTimeout is nginx's proxy_read_timeout.
var proxyReadTimeout = Annotation{
	Keys:     []string{Prefix + "proxy-read-timeout", NginxPrefix + "proxy-read-timeout"},
	Help:     "How long an endpoint may send nothing: before its answer the answer is 504, in the middle of it the answer is cut. A WebSocket may rest for an hour, or for this long if it is longer.",
	Default:  "60",
	Phase:    PhaseUpstream,
	Validate: validateTimeout,
	Apply:    func(value string, o *Options) { o.ReadTimeout = parseTimeout(value) },
}

// proxyFirstByteTimeout is narrower than proxyReadTimeout, for those who stream.
var proxyFirstByteTimeout = Annotation{
	Keys:     []string{Prefix + "proxy-first-byte-timeout"},
	Help:     "How long an endpoint may take to begin its answer, where that is not proxy-read-timeout.",
	Default:  "0",
	Phase:    PhaseUpstream,
	Validate: validateTimeoutOrNone,
	Apply:    func(value string, o *Options) { o.FirstByteTimeout = parseTimeout(value) },
}

// requestTimeout bounds all of a request.
var requestTimeout = Annotation{
	Keys:     []string{Prefix + "request-timeout"},
	Help:     "How long a request may take from its first byte to the last of its answer, all tries included: before the answer it is 504, in the middle of it the answer is cut. 0 is for ever.",
	Default:  "0",
	Phase:    PhaseUpstream,
	Validate: validateTimeoutOrNone,
	Apply:    func(value string, o *Options) { o.RequestTimeout = parseTimeout(value) },
}

// maxTimeout bounds what is likely to be meant.
const maxTimeout = 7 * 24 * time.Hour

var errTimeout = errors.New(`is no time; write whole seconds, as "60", or a number with a unit, as "1500ms", up to "168h"`)

// parseTimeout returns a negative time for what is none.
func parseTimeout(value string) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		return time.Duration(seconds) * time.Second
	}
	d, err := time.ParseDuration(value)
	if err != nil {
		return -1
	}
	return d
}

func validateTimeout(value string) error {
	if d := parseTimeout(value); d < time.Millisecond || d > maxTimeout {
		return errTimeout
	}
	return nil
}

// validateTimeoutOrNone also takes 0.
func validateTimeoutOrNone(value string) error {
	if parseTimeout(value) == 0 {
		return nil
	}
	return validateTimeout(value)
}
