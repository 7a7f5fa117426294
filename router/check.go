package router

import (
	"fmt"
	"time"
)

// HealthCheck asks each endpoint of a backend at intervals whether it is well. Its zero value
// asks nothing. It is comparable.
type HealthCheck struct {
	Kind CheckKind
	// Path of the request, and Host it is for ("": the address), of CheckHTTP; Service is
	// the name that CheckGRPC asks for ("": the whole server).
	Path, Host, Service string
	// Port that is asked; 0: the one that requests go to.
	Port uint16
	// Interval between the checks of an endpoint, with a tenth of jitter. Default 10 s.
	Interval time.Duration
	// Timeout of a check. Default 1 s.
	Timeout time.Duration
	// Rise is how many checks in a row have to succeed for an endpoint that is out to come back,
	// and Fall how many have to fail for one to be taken out. Defaults 2 and 3.
	Rise, Fall int
}

// CheckKind says how a HealthCheck asks.
type CheckKind uint8

const (
	// CheckOff does not.
	CheckOff CheckKind = iota
	// CheckTCP makes a connection.
	CheckTCP
	// CheckHTTP asks with GET, and wants an answer of 200 to 399. It speaks as requests do, HTTP/2
	// and TLS included, but to a Port of its own plain HTTP/1.1.
	CheckHTTP
	// CheckGRPC calls grpc.health.v1.Health/Check over HTTP/2, and wants SERVING. It speaks TLS
	// where requests do, but not to a Port of its own.
	CheckGRPC
)

var checkNames = [...]string{"off", "tcp", "http", "grpc"}

// String is the word people write.
func (k CheckKind) String() string { return checkNames[k] }

func (c HealthCheck) withDefaults() HealthCheck {
	if c.Interval == 0 {
		c.Interval = 10 * time.Second
	}
	if c.Timeout == 0 {
		c.Timeout = time.Second
	}
	if c.Rise == 0 {
		c.Rise = 2
	}
	if c.Fall == 0 {
		c.Fall = 3
	}
	if c.Kind == CheckHTTP && c.Path == "" {
		c.Path = "/"
	}
	return c
}

// Every is the Interval that holds.
func (c HealthCheck) Every() time.Duration { return c.withDefaults().Interval }

// String tells all that holds.
func (c HealthCheck) String() string {
	c = c.withDefaults()
	s := c.Kind.String()
	if c.Port != 0 {
		s += fmt.Sprintf(":%d", c.Port)
	}
	if c.Service != "" {
		s += "/" + c.Service
	}
	return fmt.Sprintf("%s%s%s,%s,timeout=%s,rise=%d,fall=%d", s, c.Host, c.Path, c.Interval, c.Timeout, c.Rise, c.Fall)
}
