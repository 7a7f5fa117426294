package annotation

import (
	"errors"
	"strings"
	"time"

	"github.com/portico-ingress/portico/router"
)

// defaultCookie is that of ingress-nginx.
const defaultCookie = "INGRESSCOOKIE"

// affinity keeps a client at its endpoint.
var affinity = policyAnnotation(
	Annotation{
		Keys:    both("affinity"),
		Help:    `"cookie" keeps each client at the endpoint that answered it first; wins over upstream-hash-by.`,
		Default: "",
	},
	word([]string{"cookie", ""}, router.StickyBalanced, router.StickyOff),
	func(p *router.Policy, m router.StickyMode) { p.Sticky.Mode = m },
)

// affinityMode comes after affinity.
var affinityMode = policyAnnotation(
	Annotation{
		Keys:    both("affinity-mode"),
		Help:    "balanced gives new endpoints their share of the clients; persistent leaves clients where they are until their endpoint goes.",
		Default: "balanced",
	},
	word([]string{"balanced", "persistent"}, router.StickyBalanced, router.StickyPersistent),
	func(p *router.Policy, m router.StickyMode) {
		if p.Sticky.Mode != router.StickyOff {
			p.Sticky.Mode = m
		}
	},
)

var sessionCookieName = policyAnnotation(
	Annotation{Keys: both("session-cookie-name"), Help: "Name of the cookie of affinity.", Default: defaultCookie},
	func(value string) (string, error) {
		if !isNameToken(value) || len(value) > 128 {
			return "", errors.New("is no name of a cookie (letters, digits and !#$%&'*+-.^_`|~, 128 at most)")
		}
		return value, nil
	},
	func(p *router.Policy, v string) { p.Sticky.Cookie = v },
)

const maxCookieAge = 10 * 365 * 24 * time.Hour

var sessionCookieExpires = policyAnnotation(
	Annotation{Keys: both("session-cookie-expires"), Help: "Expires of the cookie: that long after it is set.", Default: ""},
	span(0, maxCookieAge),
	func(p *router.Policy, d time.Duration) { p.Sticky.Expires = d },
)

var sessionCookieMaxAge = policyAnnotation(
	Annotation{Keys: both("session-cookie-max-age"), Help: "Max-Age of the cookie.", Default: ""},
	span(0, maxCookieAge),
	func(p *router.Policy, d time.Duration) { p.Sticky.MaxAge = d },
)

var sessionCookiePath = policyAnnotation(
	Annotation{Keys: both("session-cookie-path"), Help: "Path of the cookie; empty is the path of the rule.", Default: ""},
	func(value string) (string, error) {
		if value != "" && value[0] != '/' || !isPlain(value, ";,") || len(value) > 1024 {
			return "", errors.New(`is no path of a cookie (it begins with "/", and has no ";", "," and space)`)
		}
		return value, nil
	},
	func(p *router.Policy, v string) { p.Sticky.Path = v },
)

var sessionCookieDomain = policyAnnotation(
	Annotation{Keys: both("session-cookie-domain"), Help: "Domain of the cookie; empty is the host alone.", Default: ""},
	func(value string) (string, error) {
		if value != "" && !isHostname(value) {
			return "", errors.New("is no domain")
		}
		return value, nil
	},
	func(p *router.Policy, v string) { p.Sticky.Domain = v },
)

var sessionCookieSameSite = policyAnnotation(
	Annotation{Keys: both("session-cookie-samesite"), Help: "SameSite of the cookie: Strict, Lax or None.", Default: ""},
	func(value string) (string, error) {
		return word([]string{"strict", "lax", "none", ""}, "Strict", "Lax", "None", "")(strings.ToLower(value))
	},
	func(p *router.Policy, v string) { p.Sticky.SameSite = v },
)

var sessionCookieSecure = policyAnnotation(
	Annotation{Keys: both("session-cookie-secure"), Help: "Set Secure on the cookie over plain HTTP, too; over https it is always set.", Default: "false"},
	boolean,
	func(p *router.Policy, on bool) { p.Sticky.Secure = on },
)

var sessionCookieChangeOnFailure = policyAnnotation(
	Annotation{Keys: both("session-cookie-change-on-failure"), Help: "Bind a client to the endpoint that stood in for one that failed.", Default: "false"},
	boolean,
	func(p *router.Policy, on bool) { p.Sticky.ChangeOnFailure = on },
)
