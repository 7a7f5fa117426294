package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"go.uber.org/zap"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy"
)

const (
	// defaultHealthz is kube-proxy's --healthz-bind-address.
	defaultHealthz = "0.0.0.0:10256"
	// healthzAgain is how long after a failure it is tried again to listen there.
	healthzAgain = 2 * time.Second
)

// healthz answers load balancers in front of the nodes whether to send here, at the address and in the
// words of kube-proxy. Another one may have that address: that is a Problem until it has gone.
type healthz struct {
	addr   string // "" for nowhere
	node   string
	health func() svcproxy.ProxyHealth
	log    *zap.Logger

	mu  sync.Mutex
	err error // why nobody listens
}

func newHealthz(flags *svcproxyFlags, health func() svcproxy.ProxyHealth, log *zap.Logger) *healthz {
	return &healthz{addr: flags.healthzBindAddress.String(), node: flags.nodeName, health: health, log: log}
}

// run serves until ctx ends.
func (h *healthz) run(ctx context.Context) {
	if h.addr == "" {
		return
	}
	for ctx.Err() == nil {
		h.failed(h.serve(ctx))
		select {
		case <-ctx.Done():
		case <-time.After(healthzAgain):
		}
	}
}

func (h *healthz) serve(ctx context.Context) error {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", h.addr)
	if err != nil {
		return err
	}
	h.failed(nil)
	server := newAdminServer(h.handler(), h.log)
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// failed says once what there is to say.
func (h *healthz) failed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil && h.err == nil {
		h.log.Warn("/healthz is not served; it is tried again", zap.Error(err))
	}
	h.err = err
}

// problems are what keeps it from listening.
func (h *healthz) problems() []manifests.Problem {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		return nil
	}
	return []manifests.Problem{{
		Object: manifests.Ref{Kind: manifests.KindNode, Name: h.node}, Field: "--healthz-bind-address",
		Text: fmt.Sprintf("load balancers that ask at %s are not answered by svcproxy, and it is tried again: %v; end who listens there (kube-proxy?), or choose another address", h.addr, h.err),
	}}
}

func (h *healthz) handler() http.Handler {
	r := chi.NewRouter()
	r.Use(middleware.GetHead)
	r.Get("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		health := h.health()
		h.answer(w, health, health.Healthy && health.NodeEligible, &health.NodeEligible)
	})
	r.Get("/livez", func(w http.ResponseWriter, _ *http.Request) {
		health := h.health()
		h.answer(w, health, health.Healthy, nil)
	})
	return r
}

// healthzAnswer has the fields of kube-proxy's. LastUpdated is now if all is well, as it is there.
type healthzAnswer struct {
	LastUpdated  time.Time `json:"lastUpdated"`
	CurrentTime  time.Time `json:"currentTime"`
	NodeEligible *bool     `json:"nodeEligible,omitempty"`
	Healthy      bool      `json:"healthy"`
}

func (h *healthz) answer(w http.ResponseWriter, health svcproxy.ProxyHealth, well bool, nodeEligible *bool) {
	answer := healthzAnswer{LastUpdated: health.LastUpdated, CurrentTime: time.Now(), NodeEligible: nodeEligible, Healthy: health.Healthy}
	code := http.StatusServiceUnavailable
	if well {
		code, answer.LastUpdated = http.StatusOK, answer.CurrentTime
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	writeJSON(w, code, answer)
}
