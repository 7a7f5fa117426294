package main

import (
	"encoding/json"
	"iter"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"go.uber.org/zap"

	"github.com/portico-ingress/portico/certs"
	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/router"
)

// admin answers probes, Prometheus and people who want to know what is being served. It
// changes nothing and tells no secrets.
type admin struct {
	health       *health
	table        func() *router.Table
	backends     func() iter.Seq[*router.Backend]
	certificates func() []certs.Info
	problems     func() []manifests.Problem
	metrics      http.Handler
}

func (a *admin) handler() http.Handler {
	r := chi.NewRouter()
	r.Use(middleware.GetHead, secureHeaders)
	r.NotFound(func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, http.StatusNotFound, "no such path")
	})
	r.MethodNotAllowed(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", "GET, HEAD")
		writeError(w, http.StatusMethodNotAllowed, "GET and HEAD only: nothing can be changed here")
	})
	r.Get("/livez", a.livez)
	r.Get("/readyz", a.readyz)
	r.Get("/healthz", a.healthz)
	r.Method(http.MethodGet, "/metrics", a.metrics)
	r.Route("/api/v1", func(r chi.Router) {
		r.Get("/routes", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, viewTable(a.table())) })
		r.Get("/backends", func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, http.StatusOK, viewBackends(a.backends(), time.Now()))
		})
		r.Get("/certificates", func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, http.StatusOK, certificatesView{Certificates: list(a.certificates())})
		})
		r.Get("/problems", func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, http.StatusOK, problemsView{Problems: list(a.problems())})
		})
	})
	return r
}

// livez is for the question whether a restart would help. It would not, as long as this
// handler runs.
func (a *admin) livez(w http.ResponseWriter, _ *http.Request) { writeStatus(w, http.StatusOK, "ok") }

// readyz is for load balancers: whether to send requests here.
func (a *admin) readyz(w http.ResponseWriter, _ *http.Request) {
	switch {
	case a.health.draining.Load():
		writeStatus(w, http.StatusServiceUnavailable, "draining")
	case !a.health.ready():
		writeStatus(w, http.StatusServiceUnavailable, "waiting for the first complete configuration")
	default:
		writeStatus(w, http.StatusOK, "ok")
	}
}

// healthz is as ingress-nginx has it, for those who probe that.
func (a *admin) healthz(w http.ResponseWriter, _ *http.Request) {
	if a.health.draining.Load() {
		writeStatus(w, http.StatusInternalServerError, "draining")
		return
	}
	writeStatus(w, http.StatusOK, "ok")
}

// secureHeaders keep browsers from caching, guessing types and framing.
func secureHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

func writeStatus(w http.ResponseWriter, code int, status string) {
	writeJSON(w, code, map[string]string{"status": status})
}

func writeError(w http.ResponseWriter, code int, text string) {
	writeJSON(w, code, map[string]string{"error": text})
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(v) // the client went away: there is nobody to tell
}

// newAdminServer bounds what one client of the admin address may cost.
func newAdminServer(h http.Handler, log *zap.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      time.Minute, // the routes of a big cluster are megabytes
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          zap.NewStdLog(log),
	}
}
