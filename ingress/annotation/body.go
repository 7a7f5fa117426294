package annotation

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// proxyBodySize is nginx's client_max_body_size.
var proxyBodySize = Annotation{
	Keys:     []string{Prefix + "proxy-body-size", NginxPrefix + "proxy-body-size"},
	Help:     "The largest request body; above it the answer is 413. 0 is any size, which is the default here (1m in ingress-nginx).",
	Default:  "0",
	Phase:    PhaseUpstream,
	Validate: validateSize,
	Apply:    func(value string, o *Options) { o.MaxBody, _ = parseSize(value) },
}

// proxyRequestBuffering is nginx's proxy_request_buffering, and off unless it is asked for.
var proxyRequestBuffering = Annotation{
	Keys: []string{Prefix + "proxy-request-buffering", NginxPrefix + "proxy-request-buffering"},
	Help: "on: take a request body, as far as client-body-buffer-size goes, before an endpoint is asked, so that slow clients do not hold it up and the request can be tried again. " +
		"What is larger is streamed from there on: nothing is written to a disk. The default is off (on in ingress-nginx).",
	Default:  "off",
	Phase:    PhaseUpstream,
	Validate: validateOnOff,
	Apply:    func(value string, o *Options) { o.BufferBody = value == "on" },
}

// clientBodyBufferSize is nginx's client_body_buffer_size.
var clientBodyBufferSize = Annotation{
	Keys:     []string{Prefix + "client-body-buffer-size", NginxPrefix + "client-body-buffer-size"},
	Help:     "How much of a body proxy-request-buffering takes, at most 64m.",
	Default:  "1m",
	Phase:    PhaseUpstream,
	Validate: validateBuffer,
	Apply:    func(value string, o *Options) { o.BodyBuffer, _ = parseSize(value) },
}

// DefaultBodyBuffer is the default of client-body-buffer-size, in bytes.
const DefaultBodyBuffer = 1 << 20

const maxBodyBuffer = 64 << 20

var (
	errSize   = errors.New(`is no size; write bytes, or a number with k, m or g, as "8m"`)
	errBuffer = errors.New(`is no size from 1 to 64m; write bytes, or a number with k or m, as "256k"`)
	errOnOff  = errors.New(`is neither "on" nor "off"`)
)

// parseSize reads a size as nginx writes it, in bytes.
func parseSize(value string) (int64, error) {
	value = strings.ToLower(value)
	unit := int64(1)
	for suffix, size := range map[string]int64{"k": 1 << 10, "m": 1 << 20, "g": 1 << 30} {
		if number, ok := strings.CutSuffix(value, suffix); ok {
			value, unit = number, size
			break
		}
	}
	n, err := strconv.ParseUint(value, 10, 63)
	if err != nil || int64(n) > math.MaxInt64/unit {
		return 0, errSize
	}
	return int64(n) * unit, nil
}

func validateSize(value string) error {
	_, err := parseSize(value)
	return err
}

func validateBuffer(value string) error {
	if n, err := parseSize(value); err != nil || n < 1 || n > maxBodyBuffer {
		return errBuffer
	}
	return nil
}

func validateOnOff(value string) error {
	if value != "on" && value != "off" {
		return errOnOff
	}
	return nil
}
