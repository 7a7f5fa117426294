package engine

// FieldID stands for a field name that the engine or a proxy looks at, so that looking
// at one is an integer comparison.
type FieldID uint8

// The names that have an ID, in the spelling Portico writes them.
const (
	_ FieldID = iota
	Accept
	Allow
	Connection
	ContentLength
	ContentType
	Date
	Expect
	Forwarded
	Host
	HTTP2Settings
	KeepAlive
	Location
	Proxy
	ProxyConnection
	RetryAfter
	SecWebSocketAccept
	SecWebSocketKey
	ServerField
	SSLClientCert
	SSLClientIssuerDN
	SSLClientSubjectDN
	SSLClientVerify
	TE
	Trailer
	TransferEncoding
	Upgrade
	UserAgent
	XAccelBuffering
	XAccelCharset
	XAccelExpires
	XAccelLimitRate
	XAccelRedirect
	XForwardedClientCert
	XForwardedFor
	XForwardedHost
	XForwardedPort
	XForwardedPrefix
	XForwardedProto
	XForwardedScheme
	XForwardedServer
	XForwardedSSL
	XOriginalForwardedFor
	XOriginalURL
	XRealIP
	XRequestID
	XRewriteURL
	XScheme
	fieldIDs
)

// A FieldSet has a bit for each.
var _ [64 - fieldIDs]struct{}

var fieldNames = [fieldIDs][]byte{
	Accept:                []byte("Accept"),
	Allow:                 []byte("Allow"),
	Connection:            []byte("Connection"),
	ContentLength:         []byte("Content-Length"),
	ContentType:           []byte("Content-Type"),
	Date:                  []byte("Date"),
	Expect:                []byte("Expect"),
	Forwarded:             []byte("Forwarded"),
	Host:                  []byte("Host"),
	HTTP2Settings:         []byte("HTTP2-Settings"),
	KeepAlive:             []byte("Keep-Alive"),
	Location:              []byte("Location"),
	Proxy:                 []byte("Proxy"),
	ProxyConnection:       []byte("Proxy-Connection"),
	RetryAfter:            []byte("Retry-After"),
	SecWebSocketAccept:    []byte("Sec-WebSocket-Accept"),
	SecWebSocketKey:       []byte("Sec-WebSocket-Key"),
	ServerField:           []byte("Server"),
	SSLClientCert:         []byte("ssl-client-cert"),
	SSLClientIssuerDN:     []byte("ssl-client-issuer-dn"),
	SSLClientSubjectDN:    []byte("ssl-client-subject-dn"),
	SSLClientVerify:       []byte("ssl-client-verify"),
	TE:                    []byte("TE"),
	Trailer:               []byte("Trailer"),
	TransferEncoding:      []byte("Transfer-Encoding"),
	Upgrade:               []byte("Upgrade"),
	UserAgent:             []byte("User-Agent"),
	XAccelBuffering:       []byte("X-Accel-Buffering"),
	XAccelCharset:         []byte("X-Accel-Charset"),
	XAccelExpires:         []byte("X-Accel-Expires"),
	XAccelLimitRate:       []byte("X-Accel-Limit-Rate"),
	XAccelRedirect:        []byte("X-Accel-Redirect"),
	XForwardedClientCert:  []byte("X-Forwarded-Client-Cert"),
	XForwardedFor:         []byte("X-Forwarded-For"),
	XForwardedHost:        []byte("X-Forwarded-Host"),
	XForwardedPort:        []byte("X-Forwarded-Port"),
	XForwardedPrefix:      []byte("X-Forwarded-Prefix"),
	XForwardedProto:       []byte("X-Forwarded-Proto"),
	XForwardedScheme:      []byte("X-Forwarded-Scheme"),
	XForwardedServer:      []byte("X-Forwarded-Server"),
	XForwardedSSL:         []byte("X-Forwarded-Ssl"),
	XOriginalForwardedFor: []byte("X-Original-Forwarded-For"),
	XOriginalURL:          []byte("X-Original-URL"),
	XRealIP:               []byte("X-Real-IP"),
	XRequestID:            []byte("X-Request-ID"),
	XRewriteURL:           []byte("X-Rewrite-URL"),
	XScheme:               []byte("X-Scheme"),
}

// longestKnownName bounds the lookup.
const longestKnownName = len("X-Original-Forwarded-For")

// idsByLength finds the few names of one length, so that an unknown name costs one
// comparison or none.
var idsByLength = func() (ids [longestKnownName + 1][]FieldID) {
	for id := FieldID(1); id < fieldIDs; id++ {
		n := len(fieldNames[id])
		ids[n] = append(ids[n], id)
	}
	return ids
}()

// fieldID returns the ID of a name in any case, or 0.
func fieldID(name []byte) FieldID {
	if len(name) > longestKnownName {
		return 0
	}
	for _, id := range idsByLength[len(name)] {
		if equalFoldBytes(name, fieldNames[id]) {
			return id
		}
	}
	return 0
}
