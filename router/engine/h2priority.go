package engine

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

// Priorities (RFC 9218) are read and not followed: streams take turns. A client is told so
// with SETTINGS_NO_RFC7540_PRIORITIES, and the field goes on to the upstream.
const (
	h2FramePriorityUpdate = http2.FrameType(0x10)
	h2NoOldPriorities     = http2.SettingID(0x9)
)

// onPriorityUpdate checks a PRIORITY_UPDATE (RFC 9218 section 7.1). Nothing of it is kept, so
// that a client cannot fill memory with streams that it may open one day.
func (c *h2conn) onPriorityUpdate(f *http2.UnknownFrame) error {
	switch payload := f.Payload(); {
	case f.StreamID != 0:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case len(payload) < 4:
		return http2.ConnectionError(http2.ErrCodeFrameSize)
	case binary.BigEndian.Uint32(payload)&h2MaxID == 0:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return c.annoyed(1)
}
