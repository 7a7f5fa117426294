package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

const manifestsDir = "../../manifests"

// shipped are the kinds that are in the manifests.
var shipped = func() *runtime.Scheme {
	s := runtime.NewScheme()
	utilruntime.Must(scheme.AddToScheme(s))
	utilruntime.Must(apiextensionsv1.AddToScheme(s))
	return s
}()

// decodeFolder reads all objects of a folder as strictly as an API server reads them.
func decodeFolder(t *testing.T, dir string) []runtime.Object {
	t.Helper()
	var all []runtime.Object
	err := filepath.WalkDir(filepath.Join(manifestsDir, dir), func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || filepath.Ext(name) != ".yaml" || filepath.Base(name) == "kustomization.yaml" {
			return err
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		all = append(all, decodeFile(t, name, b)...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatalf("no objects in %s", dir)
	}
	return all
}

func decodeFile(t *testing.T, name string, b []byte) []runtime.Object {
	t.Helper()
	decoder := json.NewSerializerWithOptions(json.DefaultMetaFactory, shipped, shipped, json.SerializerOptions{Yaml: true, Strict: true})
	var all []runtime.Object
	for docs := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(b))); ; {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return all
		}
		obj, _, err := decoder.Decode(doc, nil, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		all = append(all, obj)
	}
}

func TestManifestsParse(t *testing.T) {
	for _, dir := range []string{"install/base", "install/hostports", "install/loadbalancer", "install/svcproxy", "demo", "examples"} {
		t.Run(dir, func(t *testing.T) { decodeFolder(t, dir) })
	}
}

// Objects that say their namespace end up in the same place whoever applies them.
func TestDemoAndExamplesNameTheirNamespace(t *testing.T) {
	global := map[string]bool{"Namespace": true, "IngressClass": true}
	for _, dir := range []string{"demo", "examples"} {
		for _, obj := range decodeFolder(t, dir) {
			m, err := meta.Accessor(obj)
			if err != nil {
				t.Fatal(err)
			}
			kind := obj.GetObjectKind().GroupVersionKind().Kind
			if global[kind] == (m.GetNamespace() != "") {
				t.Errorf("%s: %s %q has the namespace %q", dir, kind, m.GetName(), m.GetNamespace())
			}
		}
	}
}

// Every file that a kustomization.yaml names is there, and every other file is named.
func TestKustomizations(t *testing.T) {
	for _, dir := range []string{"install/base", "install/hostports", "install/loadbalancer", "install/svcproxy", "install/edge"} {
		b, err := os.ReadFile(filepath.Join(manifestsDir, dir, "kustomization.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		var k struct {
			Resources []string
			Patches   []struct{ Path string }
		}
		if err := yaml.Unmarshal(b, &k); err != nil {
			t.Fatal(err)
		}
		named := map[string]bool{"kustomization.yaml": true}
		for _, r := range k.Resources {
			named[r] = true
		}
		for _, p := range k.Patches {
			named[p.Path] = true
		}
		checkNames(t, filepath.Join(manifestsDir, dir), named)
	}
}

func checkNames(t *testing.T, dir string, named map[string]bool) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !named[filepath.Base(f)] {
			t.Errorf("%s is not in the kustomization.yaml", f)
		}
	}
	for name := range named {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

// The command line of an installed Portico is one that this Portico understands, its probes
// lead somewhere, and it has time to drain.
func TestInstalledCommandLines(t *testing.T) {
	for dir, kind := range map[string]string{"install/base": "Deployment", "install/hostports": "DaemonSet"} {
		t.Run(kind, func(t *testing.T) {
			pod := podSpec(t, dir, kind)
			flags := newServeFlags()
			cmd := newServeCommand()
			cmd.ResetFlags()
			flags.register(cmd.Flags())
			c := pod.Containers[0]
			if len(c.Args) == 0 || c.Args[0] != "serve" {
				t.Fatalf("args %q", c.Args)
			}
			if err := cmd.ParseFlags(c.Args[1:]); err != nil {
				t.Fatal(err)
			}
			if err := flags.validate(); err != nil {
				t.Fatal(err)
			}
			checkProbes(t, c, flags)
			if need := flags.delay().Seconds() + float64(flags.shutdownGracePeriod)/1e9; float64(*pod.TerminationGracePeriodSeconds) <= need {
				t.Errorf("terminationGracePeriodSeconds %d, must be more than %.0f", *pod.TerminationGracePeriodSeconds, need)
			}
		})
	}
}

// The same for svcproxy, which has no Service and no drain, but two capabilities and no more.
func TestInstalledSvcproxy(t *testing.T) {
	pod := podSpec(t, "install/svcproxy", "DaemonSet")
	flags := newSvcproxyFlags()
	cmd := newSvcproxyCommand()
	cmd.ResetFlags()
	flags.register(cmd.Flags())
	c := pod.Containers[0]
	if len(c.Args) == 0 || c.Args[0] != "svcproxy" {
		t.Fatalf("args %q", c.Args)
	}
	if err := errors.Join(cmd.ParseFlags(c.Args[1:]), flags.validate()); err != nil {
		t.Fatal(err)
	}
	for path, probe := range map[string]*corev1.Probe{"/livez": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
		h := probe.HTTPGet
		if h == nil || h.Path != path || h.Host+":"+h.Port.String() != flags.admin.String() {
			t.Errorf("probe of %s: %v", path, h)
		}
	}
	sc := c.SecurityContext
	if !pod.HostNetwork || !*sc.ReadOnlyRootFilesystem || *sc.AllowPrivilegeEscalation || sc.Privileged != nil ||
		!slices.Equal(sc.Capabilities.Drop, []corev1.Capability{"ALL"}) || !slices.Equal(sc.Capabilities.Add, []corev1.Capability{"NET_ADMIN", "NET_RAW"}) {
		t.Errorf("securityContext %v, hostNetwork %v", sc, pod.HostNetwork)
	}
}

func checkProbes(t *testing.T, c corev1.Container, flags *serveFlags) {
	t.Helper()
	ports := map[string]int32{}
	for _, p := range c.Ports {
		ports[p.Name] = p.ContainerPort
	}
	for name, a := range map[string]address{"http": flags.http, "https": flags.https, "admin": flags.admin} {
		if want := fmt.Sprintf(":%d", ports[name]); string(a) != want {
			t.Errorf("--%s=%s, but the container port is %s", name, a, want)
		}
	}
	for path, probe := range map[string]*corev1.Probe{"/livez": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
		if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != path || probe.HTTPGet.Port.String() != "admin" {
			t.Errorf("probe of %s: %v", path, probe)
		}
	}
}

func podSpec(t *testing.T, dir, kind string) corev1.PodSpec {
	t.Helper()
	for _, obj := range decodeFolder(t, dir) {
		switch v := obj.(type) {
		case *appsv1.Deployment:
			return v.Spec.Template.Spec
		case *appsv1.DaemonSet:
			return v.Spec.Template.Spec
		}
	}
	t.Fatalf("no %s in %s", kind, dir)
	return corev1.PodSpec{}
}

// What the installed Portico may do, in full: whoever needs more says so here and in rbac.yaml.
func TestInstalledPermissions(t *testing.T) {
	want := map[string]string{
		"ingresses.networking.k8s.io":        "get list watch",
		"ingresses/status.networking.k8s.io": "update patch",
		"ingressclasses.networking.k8s.io":   "get list watch",
		"services.":                          "get list watch",
		"endpointslices.discovery.k8s.io":    "get list watch",
		"namespaces.":                        "get list watch",
		"secrets.":                           "get list watch",
		"events.":                            "create patch",
		"events.events.k8s.io":               "create patch",
	}
	checkPermissions(t, "install/base", want)
}

// What svcproxy may do in the whole cluster, in full.
func TestInstalledPermissionsOfSvcproxy(t *testing.T) {
	checkPermissions(t, "install/svcproxy", map[string]string{
		"services.":                       "get list watch, patch",
		"services/status.":                "patch",
		"nodes.":                          "get list watch",
		"namespaces.":                     "get list watch",
		"endpointslices.discovery.k8s.io": "get list watch",
		"servicecidrs.networking.k8s.io":  "get list watch",
		"ipaddresspools.metallb.io":       "get list watch",
		"l2advertisements.metallb.io":     "get list watch",
		"events.events.k8s.io":            "create",
	})
}

func checkPermissions(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	for _, obj := range decodeFolder(t, dir) {
		role, ok := obj.(*rbacv1.ClusterRole)
		if !ok {
			continue
		}
		for _, rule := range role.Rules {
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					name, verbs := resource+"."+group, strings.Join(rule.Verbs, " ")
					if before, ok := got[name]; ok {
						verbs = before + ", " + verbs
					}
					got[name] = verbs
				}
			}
		}
	}
	for name, verbs := range want {
		if got[name] != verbs {
			t.Errorf("%s: %q, want %q", name, got[name], verbs)
		}
		delete(got, name)
	}
	for name, verbs := range got {
		t.Errorf("%s: %q, want nothing", name, verbs)
	}
}
