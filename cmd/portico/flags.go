package main

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
)

// serveFlags are the flags of portico serve. Names and meanings are those of ingress-nginx
// where it has them.
type serveFlags struct {
	manifests  string
	kubeconfig string
	demo       bool

	http, https, admin address
	http2, h2c         bool
	proxyProtocolFrom  networks

	ingressClass             string
	controllerClass          string
	watchIngressWithoutClass bool
	watchNamespaces          namespaces

	publishService       objectName
	publishStatusAddress publicAddresses
	updateStatus         bool
	electionID           string

	sessionTicketSecret   string
	defaultSSLCertificate objectName
	defaultBackendService objectName
	configMap             objectName

	serverHeader               bool
	allowLoopbackExternalNames bool

	shutdownDelay       seconds
	shutdownGracePeriod seconds

	logLevel  oneOf
	accessLog string

	changed func(name string) bool
}

func newServeFlags() *serveFlags {
	return &serveFlags{
		http:                ":8080",
		https:               ":8443",
		admin:               "127.0.0.1:10254",
		shutdownDelay:       seconds(5 * time.Second),
		shutdownGracePeriod: seconds(30 * time.Second),
		logLevel:            oneOf{value: "info", words: []string{"debug", "info", "warn", "error"}},
	}
}

func (f *serveFlags) register(s *pflag.FlagSet) {
	s.SortFlags = false
	f.changed = s.Changed

	s.StringVar(&f.manifests, "manifests", "", "serve the Kubernetes YAML in this `folder`, without a cluster")
	s.StringVar(&f.kubeconfig, "kubeconfig", "", "serve the cluster that this `file` names (default: the one it runs in)")
	s.BoolVar(&f.demo, "demo", false, "serve the built-in demo, without a cluster")

	s.Var(&f.http, "http", "where to listen for HTTP; empty for not at all")
	s.Var(&f.https, "https", "where to listen for HTTPS; empty for not at all")
	s.BoolVar(&f.http2, "http2", true, "offer HTTP/2 to HTTPS clients")
	s.BoolVar(&f.h2c, "h2c", false, "take HTTP/2 without TLS from HTTP clients that begin with it")
	s.Var(&f.proxyProtocolFrom, "proxy-protocol-from", "networks of load balancers, like 10.0.0.0/8, that begin each connection with a PROXY protocol header; from there one has to come")
	s.Var(&f.admin, "admin", "where to listen for probes, metrics and the admin API; empty for not at all")

	s.StringVar(&f.ingressClass, "ingress-class", "portico", "value of the legacy annotation kubernetes.io/ingress.class that means Portico")
	s.StringVar(&f.controllerClass, "controller-class", "portico.dev/ingress", "spec.controller of the IngressClasses that mean Portico")
	s.BoolVar(&f.watchIngressWithoutClass, "watch-ingress-without-class", false, "serve Ingresses that name no class, too")
	s.Var(&f.watchNamespaces, "watch-namespace", "read this namespace only; repeat it for several (default all)")

	s.Var(&f.publishService, "publish-service", "the Service whose addresses become the status of Ingresses")
	s.Var(&f.publishStatusAddress, "publish-status-address", "addresses that become the status of Ingresses")
	s.BoolVar(&f.updateStatus, "update-status", true, "write the status of Ingresses")
	s.StringVar(&f.electionID, "election-id", "portico-leader", "`name` of the Lease by which replicas agree on who writes status")

	s.StringVar(&f.sessionTicketSecret, "session-ticket-secret", "portico-session-tickets", "`name` of the Secret by which replicas share the keys of TLS session tickets; made if it is missing; empty: each has its own")
	s.Var(&f.defaultSSLCertificate, "default-ssl-certificate", "the Secret for hosts without a certificate of their own (default: made at start)")
	s.Var(&f.defaultBackendService, "default-backend-service", "the Service for requests that match nothing (default: Portico answers 404)")
	s.Var(&f.configMap, "configmap", "the ConfigMap with settings for all Ingresses")

	s.BoolVar(&f.serverHeader, "server-header", true, `answer with "Server: portico" where the backend says nothing`)
	s.BoolVar(&f.allowLoopbackExternalNames, "allow-loopback-external-names", false, "let ExternalName Services lead to loopback and link-local addresses")

	s.Var(&f.shutdownDelay, "shutdown-delay", "how long to accept connections after SIGTERM, while load balancers learn of it; without a cluster the default is 0s")
	s.Var(&f.shutdownGracePeriod, "shutdown-grace-period", "how long requests under way may then take")

	s.Var(&f.logLevel, "log-level", "what to log on stderr")
	s.StringVar(&f.accessLog, "access-log", "stdout", "where to log requests: stdout, stderr, off, or a `file`")
}

// validate checks what one flag alone cannot know.
func (f *serveFlags) validate() error {
	if err := f.validateSource(); err != nil {
		return err
	}
	if f.ingressClass == "" || f.controllerClass == "" {
		return usagef("--ingress-class and --controller-class: must not be empty")
	}
	if len(validation.IsDNS1123Subdomain(f.electionID)) > 0 {
		return wrongValue("election-id", f.electionID, errors.New("want the name of a Lease"))
	}
	if f.sessionTicketSecret != "" && len(validation.IsDNS1123Subdomain(f.sessionTicketSecret)) > 0 {
		return wrongValue("session-ticket-secret", f.sessionTicketSecret, errors.New("want the name of a Secret"))
	}
	if f.publishService.Name != "" && len(f.publishStatusAddress) > 0 {
		return usagef("--publish-service and --publish-status-address: give one of them")
	}
	if f.http == f.https && f.http.isGiven() {
		return usagef("--http and --https: both are %q; they need an address each", f.http)
	}
	if f.http == "" && f.https == "" {
		return usagef("--http and --https: both are empty, so there is nothing to serve")
	}
	return f.validateFiles()
}

func (f *serveFlags) validateSource() error {
	given := 0
	for _, name := range []string{"manifests", "kubeconfig", "demo"} {
		if f.changed(name) && (name != "demo" || f.demo) {
			given++
		}
	}
	if given > 1 {
		return usagef("--manifests, --kubeconfig and --demo: give one of them")
	}
	return nil
}

func (f *serveFlags) validateFiles() error {
	if f.changed("manifests") {
		if err := isFolder(f.manifests); err != nil {
			return wrongValue("manifests", f.manifests, err)
		}
	}
	if f.changed("kubeconfig") {
		if err := isReadable(f.kubeconfig); err != nil {
			return wrongValue("kubeconfig", f.kubeconfig, err)
		}
	}
	return nil
}

// local is true without a cluster.
func (f *serveFlags) local() bool { return f.demo || f.changed("manifests") }

// delay is how long to go on accepting when asked to stop. Without a cluster nobody has to
// learn of it.
func (f *serveFlags) delay() time.Duration {
	if f.local() && !f.changed("shutdown-delay") {
		return 0
	}
	return time.Duration(f.shutdownDelay)
}

func isFolder(name string) error {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return plain(err)
	case !info.IsDir():
		return errors.New("is not a folder")
	}
	_, err = os.ReadDir(name)
	return plain(err)
}

func isReadable(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return plain(err)
	}
	return f.Close()
}

// plain drops the name of the file, which the message has already.
func plain(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}
