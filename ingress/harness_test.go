package ingress

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/tools/txtar"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/portico-ingress/portico/certs"
	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/router"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testNow is when golden cases happen.
var testNow = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)

// testConfig is a Config that compiles and writes nothing.
func testConfig() *Config {
	return &Config{
		Store:           manifests.NewStore(),
		Backends:        router.NewBackends(router.BackendsConfig{}),
		Stats:           router.NewStatsSet(),
		SwapTable:       func(*router.Table) {},
		Certificates:    &certs.Live{},
		ControllerClass: "portico.dev/ingress",
		IngressClass:    "portico",
	}
}

var selfSigned = sync.OnceValue(func() *certs.Certificate {
	c, err := certs.SelfSigned()
	if err != nil {
		panic(err)
	}
	return c
})

func testCompiler(cfg *Config) *compiler {
	return newCompiler(cfg, selfSigned(), func() time.Time { return testNow })
}

// takeYAML reads manifests as from a folder.
func takeYAML(t testing.TB, text string) manifests.Change {
	t.Helper()
	store := manifests.NewStore()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		files := manifests.NewFiles(manifests.FilesConfig{FS: fstest.MapFS{"objects.yaml": {Data: []byte(expandCertificates(t, text))}}})
		done <- files.Run(ctx, store)
	}()
	<-store.Changed()
	change, ok := store.Take()
	cancel()
	if err := <-done; err != nil || !ok {
		t.Fatalf("objects.yaml: %v", err)
	}
	for _, p := range change.Problems {
		t.Fatalf("objects.yaml: %v", p)
	}
	return change
}

// @crt(kind host host ...) and @key(...) in YAML stand for the two halves of a key pair.
var placeholder = regexp.MustCompile(`@(crt|key)\(([a-z]+)((?: [^ )]+)*)\)`)

func expandCertificates(t testing.TB, text string) string {
	t.Helper()
	return placeholder.ReplaceAllStringFunc(text, func(found string) string {
		m := placeholder.FindStringSubmatch(found)
		pair := keyPair(t, m[2], strings.Fields(m[3]))
		if m[1] == "crt" {
			return strconv.Quote(pair[0])
		}
		return strconv.Quote(pair[1])
	})
}

var (
	keyPairs   = map[string][2]string{}
	keyPairsMu sync.Mutex
)

// keyPair makes a certificate; the kind is rsa, or says what is wrong with its dates.
func keyPair(t testing.TB, kind string, hosts []string) [2]string {
	t.Helper()
	keyPairsMu.Lock()
	defer keyPairsMu.Unlock()
	id := kind + " " + strings.Join(hosts, " ")
	if pair, ok := keyPairs[id]; ok {
		return pair
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(int64(len(keyPairs) + 1)),
		Subject:      pkix.Name{CommonName: "test"},
		DNSNames:     hosts,
		NotBefore:    testNow.AddDate(-1, 0, 0),
		NotAfter:     testNow.AddDate(1, 0, 0),
	}
	switch kind {
	case "expired":
		template.NotAfter = testNow.AddDate(0, 0, -1)
	case "soon":
		template.NotAfter = testNow.AddDate(0, 0, 3)
	case "future":
		template.NotBefore = testNow.AddDate(0, 0, 1)
	}
	keyPairs[id] = signed(t, template, kind == "rsa")
	return keyPairs[id]
}

func signed(t testing.TB, template *x509.Certificate, useRSA bool) [2]string {
	t.Helper()
	var key, public any
	if useRSA {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		key, public = k, &k.PublicKey
	} else {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		key, public = k, &k.PublicKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return [2]string{
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})),
	}
}

// caseConfig is the section "config" of a golden case.
type caseConfig struct {
	WatchWithoutClass  bool                `json:"watchWithoutClass"`
	ImplicitClass      bool                `json:"implicitClass"`
	DefaultBackend     string              `json:"defaultBackend"`
	DefaultCertificate string              `json:"defaultCertificate"`
	ConfigMap          string              `json:"configMap"`
	AllowLoopback      bool                `json:"allowLoopback"`
	Names              map[string][]string `json:"names"` // what the resolver answers; none: an error
}

func (c *caseConfig) config() *Config {
	cfg := testConfig()
	cfg.WatchWithoutClass, cfg.ImplicitClass = c.WatchWithoutClass, c.ImplicitClass
	cfg.AllowLoopbackExternal = c.AllowLoopback
	cfg.DefaultBackend = parseName(c.DefaultBackend)
	cfg.DefaultCertificate = parseName(c.DefaultCertificate)
	cfg.ConfigMap = parseName(c.ConfigMap)
	return cfg
}

func parseName(s string) types.NamespacedName {
	ns, name, _ := strings.Cut(s, "/")
	return types.NamespacedName{Namespace: ns, Name: name}
}

func readCase(t *testing.T, file string) (*txtar.Archive, map[string]string, caseConfig) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	archive := txtar.Parse(data)
	sections := map[string]string{}
	for _, f := range archive.Files {
		sections[f.Name] = string(f.Data)
	}
	var c caseConfig
	if err := yaml.UnmarshalStrict([]byte(sections["config"]), &c); err != nil {
		t.Fatal(err)
	}
	return archive, sections, c
}

func goldenFiles(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden cases", err)
	}
	return files
}

// settle compiles a change to its end: the resolver's answers included.
func settle(c *compiler, change manifests.Change, names map[string][]string) {
	c.note(change)
	c.build()
	for host := range c.externalHosts() {
		c.noteAnswer(answerFrom(host, names))
	}
}

func answerFrom(host string, names map[string][]string) answer {
	a := answer{host: host}
	for _, text := range names[host] {
		a.addresses = append(a.addresses, netip.MustParseAddr(text))
	}
	if len(a.addresses) == 0 {
		a.err = &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return a
}

func dumpProblems(c *compiler) string {
	all, _ := c.problems.all()
	var b strings.Builder
	for _, p := range all {
		fmt.Fprintf(&b, "%s %s\n", p.reason, p.Problem)
	}
	return b.String()
}

func dumpCertificates(c *compiler) string {
	var b strings.Builder
	for _, info := range c.set.Certificates() {
		hosts := strings.Join(info.Hosts, " ")
		if info.Default {
			hosts = strings.TrimSpace("(default) " + hosts)
		}
		fmt.Fprintf(&b, "%s %s: %s\n", info.Name, info.KeyType, hosts)
	}
	return b.String()
}
