package manifests

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

const serviceX = "apiVersion: v1\nkind: Service\nmetadata: {name: x}\n"

func TestDecode_Objects(t *testing.T) {
	for name, c := range map[string]struct {
		file, text string
		want       []string
		ignored    int
	}{
		"one":                 {text: serviceX, want: []string{"Service default/x"}},
		"nothing":             {text: "", want: []string{}},
		"comments":            {text: "# nothing\n---\n# at all\n---\n", want: []string{}},
		"null":                {text: "---\nnull\n", want: []string{}},
		"several":             {text: "# a\n---\n" + serviceX + "--- # b\n" + strings.ReplaceAll(serviceX, "x", "z"), want: []string{"Service default/x", "Service default/z"}},
		"document end":        {text: "%YAML 1.1\n---\n" + serviceX + "...\n# more\n---\n" + strings.ReplaceAll(serviceX, "x", "z"), want: []string{"Service default/x", "Service default/z"}},
		"on the marker line":  {text: "--- {apiVersion: v1, kind: Namespace, metadata: {name: ns}}\n", want: []string{"Namespace ns"}},
		"Windows lines":       {text: strings.ReplaceAll("---\n"+serviceX+"---\n"+serviceX, "\n", "\r\n"), want: []string{"Service default/x", "Service default/x"}},
		"byte order mark":     {text: "\ufeff" + serviceX, want: []string{"Service default/x"}},
		"List":                {text: "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Service, metadata: {name: x, namespace: ns}}, {apiVersion: apps/v1, kind: Deployment}]}", want: []string{"Service ns/x"}, ignored: 1},
		"IngressList":         {text: "{apiVersion: networking.k8s.io/v1, kind: IngressList, items: [{metadata: {name: x}}]}", want: []string{"Ingress default/x"}},
		"other lists":         {text: "{apiVersion: apps/v1, kind: DeploymentList, items: 3}", want: []string{}, ignored: 1},
		"other kinds":         {text: "{apiVersion: serving.knative.dev/v1, kind: Service, metadata: {name: x}}", want: []string{}, ignored: 1},
		"class has no space":  {text: "{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: x, namespace: ns}}", want: []string{"IngressClass x"}},
		"JSON":                {file: "a.json", text: "{\"apiVersion\": \"v1\",\n\t\"kind\": \"Service\", \"metadata\": {\"name\": \"x\"}}", want: []string{"Service default/x"}},
		"JSON, several":       {file: "a.json", text: `{"apiVersion":"v1","kind":"Service","metadata":{"name":"x"}} {"apiVersion":"v1","kind":"Pod","metadata":{"name":"y"}}`, want: []string{"Service default/x", "Pod default/y"}},
		"JSON in a yaml file": {text: `{"apiVersion":"v1","kind":"Service","metadata":{"name":"x"}}`, want: []string{"Service default/x"}},
		"anchors":             {text: "apiVersion: v1\nkind: Service\nmetadata: {name: x, annotations: &a {k: v}, labels: *a}\n", want: []string{"Service default/x"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := decodeFile(or(c.file, "a.yaml"), []byte(c.text))
			if err != nil {
				t.Fatal(err)
			}
			refs := []string{}
			for _, o := range got.objects {
				refs = append(refs, o.ref.String())
			}
			equal(t, "objects", refs, c.want)
			equal(t, "ignored", got.ignored, c.ignored)
			equal(t, "problems", got.problems, []Problem(nil))
		})
	}
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func TestDecode_Errors(t *testing.T) {
	for name, c := range map[string]struct {
		file, text string
		want       string
	}{
		"syntax":              {text: "---\n" + serviceX + "---\na: b\n c: d\n", want: "line 7: mapping values are not allowed in this context"},
		"tab":                 {text: serviceX + "spec:\n\tports: []\n", want: "line 5: found character that cannot start any token"},
		"duplicate key":       {text: "# x\n---\n" + serviceX + "spec:\n  type: ClusterIP\n  type: NodePort\n", want: `line 8: key "type" already set in map`},
		"string for a number": {text: "# x\n---\n" + serviceX + "spec:\n  ports:\n  - name: http\n    port: \"80\"\n", want: "line 9: spec.ports[0].port of Service: want int32, have string"},
		"number for a string": {text: serviceX + "spec:\n  ports:\n  - {port: 1}\n  - {port: 1,\n     name: 5}\n", want: "line 8: spec.ports[1].name of Service: want string, have number"},
		"map for a list":      {text: serviceX + "spec:\n  ports: {port: 1}\n", want: "line 5: spec.ports of Service: want []v1.ServicePort, have object"},
		"annotation":          {text: "apiVersion: v1\nkind: Service\nmetadata:\n  name: x\n  annotations:\n    a.b/c: true\n", want: "line 6: metadata.annotations.a.b/c of Service: want string, have bool"},
		"no kind":             {text: serviceX + "---\nfoo: bar\n", want: "line 5: not a Kubernetes object: it needs apiVersion and kind"},
		"no apiVersion":       {text: "a: b\nkind: Service\n", want: "line 2: Service has no apiVersion"},
		"a list":              {text: "- a\n", want: "line 1: not a Kubernetes object: it needs apiVersion and kind"},
		"text":                {text: "\nhello\n", want: "line 2: not a Kubernetes object: it needs apiVersion and kind"},
		"base64":              {text: "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata:\n  ok: AAAA\n  tls.crt: plain text\n", want: "line 6: data.tls.crt of Secret is not base64; plain text goes into stringData"},
		"in a List":           {text: "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: p}}\n- apiVersion: v1\n  kind: Service\n  spec:\n    ports: 5\n", want: "line 8: spec.ports of Service: want []v1.ServicePort, have number"},
		"items":               {text: "apiVersion: v1\nkind: List\nitems: 5\n", want: "line 3: items is not a list"},
		"nested lists":        {text: strings.Repeat("{apiVersion: v1, kind: List, items: [", 6) + strings.Repeat("]}", 6), want: "line 1: lists within lists, more than 4 deep"},
		"JSON syntax":         {file: "a.json", text: "{\n\"a\": 1,\n}", want: "line 3: invalid character '}' looking for beginning of object key string"},
		"JSON end":            {file: "a.json", text: "{\n\"a\": 1,\n", want: "line 3: the file ends in the middle of a value"},
		"JSON duplicate":      {file: "a.json", text: "{\"apiVersion\": \"v1\", \"kind\": \"Service\",\n\t\"metadata\": {\"name\": \"x\",\n\t\"name\": \"y\"}}", want: `line 2: duplicate field "metadata.name"`},
		"JSON type":           {file: "a.json", text: "{\"apiVersion\": \"v1\", \"kind\": \"Service\",\n\t\"spec\": {\"ports\": [\n\t{\"port\": \"x\"}]}}", want: "line 3: spec.ports[0].port of Service: want int32, have string"},
		"alias bomb": {text: "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n" +
			"e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,*g,*g,*g,*g]\n", want: "line 1: aliases make this document too large"},
		"long string bomb": {text: "a: &a " + strings.Repeat("x", 1<<20) + "\nb: [" + strings.Repeat("*a,", 100) + "]\n", want: "line 1: aliases make this document too large"},
		"circle":           {text: "a: &a [*a]\n", want: "line 1: aliases make this document too large"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := decodeFile(or(c.file, "a.yaml"), []byte(c.text))
			if _, ok := errors.AsType[*lineError](err); !ok {
				t.Fatalf("got %v", err)
			}
			equal(t, "error", err.Error(), c.want)
		})
	}
}

func TestDecode_Problems(t *testing.T) {
	for name, c := range map[string]struct {
		text    string
		want    string
		objects int
	}{
		"unknown field": {text: "# x\n" + serviceX + "spec:\n  ports:\n  - port: 80\n    protcol: TCP\n", want: "Service default/x: spec.ports[0].protcol: unknown field, ignored (a.yaml line 8)", objects: 1},
		"case matters":  {text: serviceX + "Spec: {}\n", want: "Service default/x: Spec: unknown field, ignored (a.yaml line 4)", objects: 1},
		"no name":       {text: "apiVersion: v1\nkind: Service\nmetadata:\n  labels: {}\n", want: "File a.yaml: line 3: Service has no metadata.name and is not used"},
		"bad name":      {text: strings.ReplaceAll(serviceX, "x", "A/b"), want: `File a.yaml: line 3: Service has the metadata.name "A/b", which Kubernetes does not allow, and is not used`},
		"bad namespace": {text: strings.ReplaceAll(serviceX, "x}", "x, namespace: a.b}"), want: `File a.yaml: line 3: Service has the metadata.namespace "a.b", which Kubernetes does not allow, and is not used`},
		"old Ingress":   {text: "apiVersion: extensions/v1beta1\nkind: Ingress\n", want: "File a.yaml: line 2: extensions/v1beta1 Ingress is not read; write networking.k8s.io/v1 Ingress"},
		"beta Ingress":  {text: "apiVersion: networking.k8s.io/v1beta1\nkind: Ingress\n", want: "File a.yaml: line 1: apiVersion networking.k8s.io/v1beta1 of Ingress is not supported; the object is not used, write networking.k8s.io/v1"},
		"Endpoints":     {text: "apiVersion: v1\nkind: Endpoints\n", want: "File a.yaml: line 2: v1 Endpoints is not read; write discovery.k8s.io/v1 EndpointSlice, or the Pods themselves"},
		"among others":  {text: serviceX + "---\napiVersion: v1\nkind: Service\n", want: "File a.yaml: line 5: Service has no metadata.name and is not used", objects: 1},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := decodeFile("a.yaml", []byte(c.text))
			if err != nil {
				t.Fatal(err)
			}
			if len(got.problems) != 1 || len(got.objects) != c.objects {
				t.Fatalf("%d objects, problems %v", len(got.objects), got.problems)
			}
			equal(t, "problem", got.problems[0].String(), c.want)
		})
	}
}

func decodeOne[T any](t *testing.T, text string) T {
	t.Helper()
	got, err := decodeFile("a.yaml", []byte(text))
	if err != nil || len(got.objects) != 1 {
		t.Fatalf("%v %v", got, err)
	}
	return got.objects[0].object.(T)
}

func TestDecode_Defaults(t *testing.T) {
	s := decodeOne[*corev1.Service](t, serviceX+"spec: {ports: [{port: 80}, {port: 81, targetPort: web, protocol: UDP}]}")
	if s.Spec.Type != corev1.ServiceTypeClusterIP || s.Spec.Ports[0].Protocol != corev1.ProtocolTCP || s.Spec.Ports[0].TargetPort.IntVal != 80 ||
		s.Spec.Ports[1].TargetPort.StrVal != "web" || s.Spec.Ports[1].Protocol != corev1.ProtocolUDP {
		t.Errorf("%+v", s.Spec)
	}
	secret := decodeOne[*corev1.Secret](t, "{apiVersion: v1, kind: Secret, metadata: {name: s}, data: {a: YQ==, b: YQ==}, stringData: {b: text, c: more}}")
	equal(t, "data", secret.Data, map[string][]byte{"a": []byte("a"), "b": []byte("text"), "c": []byte("more")})
	equal(t, "type", secret.Type, corev1.SecretTypeOpaque)
	secret = decodeOne[*corev1.Secret](t, "{apiVersion: v1, kind: Secret, metadata: {name: s}, type: kubernetes.io/tls, stringData: {tls.crt: text}}")
	equal(t, "type", secret.Type, corev1.SecretTypeTLS)
	equal(t, "crt", string(secret.Data["tls.crt"]), "text")
	i := decodeOne[*networkingv1.Ingress](t, "{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: i, creationTimestamp: '2026-01-02T03:04:05Z', deletionTimestamp: '2026-01-02T03:04:06Z'}}")
	if i.CreationTimestamp.Year() != 2026 || i.DeletionTimestamp == nil {
		t.Errorf("timestamps are lost: %+v", i.ObjectMeta)
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		serviceX, "---\n" + serviceX + "---\n{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Pod}]}",
		"a: &a [*a]\n", "- &x {a: *x}\n", "{\"apiVersion\": 1}", "kind: &k Service\napiVersion: v1\nmetadata: {name: *k, <<: {a: b}}\n",
		"apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: '!'}\n", "%YAML 1.1\n--- |\n text\n...\n", "\ufeff\t\x00",
		"apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{port: a, targetPort: {}}], nope: 1}\n",
	} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, data []byte, isJSON bool) {
		name := "a.yaml"
		if isJSON {
			name = "a.json"
		}
		got, err := decodeFile(name, data)
		var at *lineError
		if err != nil && !errors.As(err, &at) {
			t.Fatalf("an error without a line: %v", err)
		}
		// YAML has more line breaks than an editor shows.
		breaks := len(strings.FieldsFunc("x"+strings.NewReplacer("\n", "\nx", "\r", "\nx", "\u0085", "\nx", "\u2028", "\nx", "\u2029", "\nx").Replace(string(data)),
			func(r rune) bool { return r == '\n' }))
		if at != nil && (at.line < 1 || at.line > 2+breaks) {
			t.Fatalf("line %d of %q: %v", at.line, data, err)
		}
		v := assemble(map[string]*file{name: {content: got}}, nil)
		s := NewStore()
		for _, ref := range sortedRefs(v.objects) {
			s.Put(v.objects[ref])
		}
	})
}
