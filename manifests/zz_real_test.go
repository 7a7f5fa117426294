package manifests

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

func TestReal(t *testing.T) {
	rc := func(tok string) *rest.Config {
		return &rest.Config{Host: "https://127.0.0.1:26443", BearerToken: tok, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
	}
	admin, _ := kubernetes.NewForConfig(rc("admintok"))
	ctx := context.Background()
	for i := 0; ; i++ {
		if _, err := admin.CoreV1().Namespaces().Get(ctx, "default", metav1.GetOptions{}); err == nil {
			break
		}
		time.Sleep(time.Second)
		if i > 90 { t.Fatal("no api") }
	}
	mk := func(name, typ string) {
		_ = admin.CoreV1().Secrets("default").Delete(ctx, name, metav1.DeleteOptions{})
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"kubernetes.io/service-account.name": "default"}}, Type: corev1.SecretType(typ), StringData: map[string]string{"a": "1"}}
		if _, err := admin.CoreV1().Secrets("default").Create(ctx, s, metav1.CreateOptions{}); err != nil { t.Fatal(err) }
	}
	mk("plain", "Opaque")
	mk("helm", "helm.sh/release.v1")
	mk("satok", "kubernetes.io/service-account-token")
	log, _ := zap.NewDevelopment()
	cfg, err := NewClusterConfig(rc("admintok"))
	if err != nil { t.Fatal(err) }
	cfg.Log = log
	c := NewCluster(cfg)
	store := NewStore()
	cctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	begin := time.Now()
	go func() { done <- c.Run(cctx, store) }()
	eventually(t, store, "open", func(Change) bool { return true })
	fmt.Println("open after", time.Since(begin))
	ref := func(n string) Ref { return Ref{KindSecret, "default", n} }
	c.Want([]Ref{ref("plain"), ref("helm"), ref("satok"), ref("none"), {KindConfigMap, "default", "m"}})
	ch := eventually(t, store, "settled", func(c Change) bool { return len(c.Pending) == 0 })
	fmt.Println("plain", ch.Objects.Secret("default", "plain") != nil, "helm", ch.Objects.Secret("default", "helm") != nil, "satok", ch.Objects.Secret("default", "satok") != nil)
	c.mu.Lock(); r := c.running; c.mu.Unlock()
	r.secrets.mu.Lock(); fmt.Println("names known:", len(r.secrets.scopes[""].versions), r.secrets.scopes[""].versions); r.secrets.mu.Unlock()
	t0 := time.Now()
	s, _ := admin.CoreV1().Secrets("default").Get(ctx, "plain", metav1.GetOptions{})
	s.Data = map[string][]byte{"a": []byte("2")}
	if _, err := admin.CoreV1().Secrets("default").Update(ctx, s, metav1.UpdateOptions{}); err != nil { t.Fatal(err) }
	eventually(t, store, "rotated", func(c Change) bool { return string(c.Objects.Secret("default", "plain").Data["a"]) == "2" })
	fmt.Println("secret rotation", time.Since(t0))
	_ = admin.CoreV1().ConfigMaps("default").Delete(ctx, "m", metav1.DeleteOptions{})
	if _, err := admin.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "m"}, Data: map[string]string{"a": "b"}}, metav1.CreateOptions{}); err != nil { t.Fatal(err) }
	_, _ = admin.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "other"}}, metav1.CreateOptions{})
	ch = eventually(t, store, "configmap", func(c Change) bool { return c.Objects.ConfigMap("default", "m") != nil })
	if ch.Objects.ConfigMap("default", "other") != nil { t.Error("other configmap") }
	t0 = time.Now()
	_ = admin.DiscoveryV1().EndpointSlices("default").Delete(ctx, "sl", metav1.DeleteOptions{})
	_, err = admin.DiscoveryV1().EndpointSlices("default").Create(ctx, &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: "sl", Labels: map[string]string{discoveryv1.LabelServiceName: "web", "service.kubernetes.io/headless": ""}}, AddressType: "IPv4"}, metav1.CreateOptions{})
	if err != nil { t.Fatal(err) }
	eventually(t, store, "slice", func(c Change) bool { return len(names(c.Objects.EndpointSlices("default", "web"))) == 1 })
	fmt.Println("slice event", time.Since(t0))

	// a poor account
	pcfg, _ := NewClusterConfig(rc("poortok"))
	pcfg.Log = log.Named("poor")
	poor, pstore := NewCluster(pcfg), NewStore()
	pctx, pcancel := context.WithCancel(ctx)
	pdone := make(chan error, 1)
	go func() { pdone <- poor.Run(pctx, pstore) }()
	time.Sleep(3 * time.Second)
	for _, p := range pstore.Problems() { fmt.Println("  ", p) }
	pcancel(); <-pdone

	// API server goes away and comes back with a change made meanwhile impossible; kill, restart.
	pid, _ := os.ReadFile("/tmp/mfa/api.pid")
	fmt.Println(exec.Command("kill", "-9", strings.TrimSpace(string(pid))).Run())
	time.Sleep(8 * time.Second)
	ch, _ = store.Take()
	fmt.Println("while away: changes", len(ch.Refs), "problems", len(ch.Problems), "plain", ch.Objects.Secret("default", "plain") != nil)
	cmd := exec.Command("sh", "-c", "cd /tmp/mfa && exec ./start.sh")
	if err := cmd.Run(); err != nil { t.Fatal(err) }
	for {
		if _, err := admin.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "g"}}, metav1.CreateOptions{}); err == nil { break }
		time.Sleep(200*time.Millisecond)
	}
	back := time.Now()
	_, _ = admin.CoreV1().Services("default").Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "after"}, Spec: corev1.ServiceSpec{ClusterIP: "None", Ports: []corev1.ServicePort{{Port: 1}}}}, metav1.CreateOptions{})
	ch = eventually(t, store, "after", func(c Change) bool { return c.Objects.Service("default", "after") != nil })
	fmt.Println("caught up", time.Since(back), refs(ch))
	// stop while the API is away
	pid, _ = os.ReadFile("/tmp/mfa/api.pid")
	_ = exec.Command("kill", "-9", strings.TrimSpace(string(pid))).Run()
	time.Sleep(4 * time.Second)
	t0 = time.Now()
	cancel()
	<-done
	fmt.Println("stopped in", time.Since(t0))
}
