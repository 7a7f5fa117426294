package annotation

import (
	"errors"
	"fmt"
)

// proxyBuffering is nginx's proxy_buffering, and off as in ingress-nginx. nginx holds an answer
// back until a buffer is full; here it is only what the client does not take that is held.
var proxyBuffering = Annotation{
	Keys: []string{Prefix + "proxy-buffering", NginxPrefix + "proxy-buffering"},
	Help: "on: while a client takes an answer more slowly than its endpoint sends it, go on reading, as far as proxy-buffers-number times proxy-buffer-size goes, so that endpoints are free sooner. " +
		"Nothing is held back, and nothing is written to a disk: beyond that the endpoint waits for the client, as it does without. " +
		"Not for text/event-stream, gRPC, upgrades, and answers with X-Accel-Buffering: no (yes does not turn it on).",
	Default:  "off",
	Phase:    PhaseUpstream,
	Validate: validateOnOff,
	Apply:    func(value string, o *Options) { o.AnswerBuffer.On = value == "on" },
}

// proxyBufferSize is nginx's proxy_buffer_size, which is the size of each of its proxy_buffers
// in ingress-nginx, too. There it also bounds the head of an answer.
var proxyBufferSize = Annotation{
	Keys:     []string{Prefix + "proxy-buffer-size", NginxPrefix + "proxy-buffer-size"},
	Help:     "The size of one of the buffers of proxy-buffering. It does not bound the head of an answer (which may have 64k).",
	Default:  "4k",
	Phase:    PhaseUpstream,
	Validate: validateAnswerBuffer,
	Apply:    func(value string, o *Options) { o.AnswerBuffer.Size, _ = parseSize(value) },
}

// proxyBuffersNumber is the number of nginx's proxy_buffers.
var proxyBuffersNumber = Annotation{
	Keys:     []string{Prefix + "proxy-buffers-number", NginxPrefix + "proxy-buffers-number"},
	Help:     "How many buffers of proxy-buffer-size there are for an answer; all together at most 16m.",
	Default:  "4",
	Phase:    PhaseUpstream,
	Validate: func(value string) error { _, err := buffersNumber(value); return err },
	Apply:    func(value string, o *Options) { o.AnswerBuffer.Number, _ = buffersNumber(value) },
}

var buffersNumber = number(1, 4096)

// proxyMaxTempFileSize is nginx's proxy_max_temp_file_size. There are no such files here.
var proxyMaxTempFileSize = Annotation{
	Keys:     []string{Prefix + "proxy-max-temp-file-size", NginxPrefix + "proxy-max-temp-file-size"},
	Help:     "0, which is how it is: no answer is written to a file. Other sizes (1024m in ingress-nginx) have no effect, and are told.",
	Default:  "0",
	Phase:    PhaseUpstream,
	Validate: validateNoFile,
	Apply:    func(string, *Options) {},
}

// AnswerBuffer is how much of an answer may be held for its client. The zero value holds none.
type AnswerBuffer struct {
	On     bool
	Size   int64 // of one buffer in bytes; 0: 4k
	Number int   // of buffers; 0: 4
}

// What holds where nothing else is said, and what all buffers of an answer may have: a quarter
// of what there is for all answers.
const (
	defaultBufferSize    = 4 << 10
	defaultBuffersNumber = 4
	maxAnswerBuffer      = 16 << 20
)

// Bytes is how much that is in all; 0: none.
func (b AnswerBuffer) Bytes() int64 {
	if !b.On {
		return 0
	}
	return min(b.asked(), maxAnswerBuffer)
}

func (b AnswerBuffer) asked() int64 {
	size, n := b.Size, b.Number
	if size == 0 {
		size = defaultBufferSize
	}
	if n == 0 {
		n = defaultBuffersNumber
	}
	return size * int64(n) // at most 16m times 4096
}

// settle tells about what two values make together.
func (b AnswerBuffer) settle(annotations map[string]string) []Finding {
	if !b.On || b.asked() <= maxAnswerBuffer {
		return nil
	}
	for _, key := range append(proxyBuffersNumber.Keys, proxyBufferSize.Keys...) {
		if _, ok := annotations[key]; ok {
			return []Finding{{key, fmt.Sprintf("proxy-buffers-number times proxy-buffer-size are %d bytes; %d (16m) are used, which is the most; lower one of the two", b.asked(), maxAnswerBuffer)}}
		}
	}
	return nil
}

var (
	errAnswerBuffer = errors.New(`is no size from 1k to 16m; write bytes, or a number with k or m, as "8k"`)
	errTempFile     = errors.New(`has no effect: no answer is written to a file, and what does not fit in proxy-buffers-number times proxy-buffer-size waits at the endpoint; write "0", or remove it`)
)

func validateAnswerBuffer(value string) error {
	if n, err := parseSize(value); err != nil || n < 1<<10 || n > maxAnswerBuffer {
		return errAnswerBuffer
	}
	return nil
}

func validateNoFile(value string) error {
	switch n, err := parseSize(value); {
	case err != nil:
		return errSize
	case n > 0:
		return errTempFile
	}
	return nil
}
