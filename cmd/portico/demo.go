package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/portico-ingress/portico/certs"
	"github.com/portico-ingress/portico/manifests"
)

// Names that the demo's manifests and this file have in common.
const (
	demoNamespace  = "demo"
	demoService    = "echo"
	demoPort       = "http"
	demoHost       = "demo.localhost"
	demoSecureHost = "secure.localhost"
	demoSecret     = "secure-localhost"
)

// demo is what `portico serve --demo` shows: the manifests of the binary in a folder that can
// be played with, and two backends on loopback that they lead to.
type demo struct {
	dir   string
	echos []*echo
	urls  demoURLs
}

// demoURLs are where Portico itself listens, for those who look at the demo.
type demoURLs struct {
	HTTP  string // http://demo.localhost:8080
	HTTPS string // https://secure.localhost:8443
	Admin string // http://127.0.0.1:10254
}

// startDemo starts the backends and writes the folder. Stop ends it, also after an error.
func startDemo(ctx context.Context, urls demoURLs) (*demo, error) {
	d := &demo{urls: urls}
	for i := range 2 {
		e, err := startEcho(ctx, demoService+"-"+strconv.Itoa(i+1), urls)
		if err != nil {
			return d, fmt.Errorf("demo: %w", err)
		}
		d.echos = append(d.echos, e)
	}
	if err := d.writeFolder(); err != nil {
		return d, fmt.Errorf("demo: %w", err)
	}
	return d, nil
}

func (d *demo) stop() {
	for _, e := range d.echos {
		e.stop()
	}
	if d.dir != "" {
		_ = os.RemoveAll(d.dir) // a temporary folder: the system clears it some day
	}
}

// writeFolder puts the manifests of the binary into a folder, with two files that only this
// process can know: the addresses of the backends, and a certificate, the key of which must
// not be in a repository.
func (d *demo) writeFolder() error {
	dir, err := os.MkdirTemp("", "portico-demo-")
	if err != nil {
		return err
	}
	d.dir = dir
	if err := os.CopyFS(dir, manifests.Demo()); err != nil {
		return err
	}
	secret, err := newDemoSecret()
	if err != nil {
		return err
	}
	if err := d.write("certificate.yaml", secret); err != nil {
		return err
	}
	return d.write("endpoints.yaml", d.endpointSlices()...)
}

func (d *demo) write(name string, objects ...any) error {
	var docs []string
	for _, o := range objects {
		b, err := yaml.Marshal(o)
		if err != nil {
			return err
		}
		docs = append(docs, string(b))
	}
	return os.WriteFile(filepath.Join(d.dir, name), []byte(strings.Join(docs, "---\n")), 0o600)
}

// endpointSlices are one for each backend, because the endpoints of one share their port.
func (d *demo) endpointSlices() []any {
	var all []any
	for _, e := range d.echos {
		port, name := e.port(), demoPort
		all = append(all, &discoveryv1.EndpointSlice{
			TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: manifests.KindEndpointSlice},
			ObjectMeta: metav1.ObjectMeta{
				Namespace: demoNamespace,
				Name:      e.name,
				Labels:    map[string]string{discoveryv1.LabelServiceName: demoService},
			},
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
			Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"127.0.0.1"}}},
		})
	}
	return all
}

func newDemoSecret() (*corev1.Secret, error) {
	c, err := certs.SelfSigned(demoSecureHost)
	if err != nil {
		return nil, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(c.TLS().PrivateKey)
	if err != nil {
		return nil, err
	}
	return &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: manifests.KindSecret},
		ObjectMeta: metav1.ObjectMeta{Namespace: demoNamespace, Name: demoSecret},
		Type:       corev1.SecretTypeTLS,
		StringData: map[string]string{
			corev1.TLSCertKey:       pemOf("CERTIFICATE", c.Leaf.Raw),
			corev1.TLSPrivateKeyKey: pemOf("PRIVATE KEY", key),
		},
	}, nil
}

func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// tour says what to try. Each line begins with what the person does.
func (d *demo) tour(w io.Writer) {
	fmt.Fprintf(w, `
Portico serves its demo. Try:

  curl %[1]s/echo/hello
      a host and a path: what a backend sees of a request

  curl --insecure %[2]s/echo
      TLS, with a certificate out of a Secret

  curl '%[1]s/whoami?[1-6]'
      two backends in turn

  %[1]s/
      the page

  %[3]s/api/v1/routes
      what is served, as JSON; also backends, certificates and problems

The manifests are in %[4]s. Edit them: changes are live at once.
Ctrl+C ends it.

`, d.urls.HTTP, d.urls.HTTPS, d.urls.Admin, d.dir)
}

// demoURL is an address to click on. Names that end in .localhost lead to loopback in browsers
// and in curl, without a hosts file.
func demoURL(scheme, host string, ln net.Listener) string {
	if ln == nil {
		return scheme + "://(off)"
	}
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		panic(err) // of a TCP listener
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}
