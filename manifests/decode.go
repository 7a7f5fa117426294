package manifests

import (
	"cmp"
	"encoding/base64"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

// readKinds are the kinds that are read from files, and in which version.
var readKinds = map[schema.GroupKind]string{
	{Group: "networking.k8s.io", Kind: KindIngress}:      "v1",
	{Group: "networking.k8s.io", Kind: KindIngressClass}: "v1",
	{Group: "discovery.k8s.io", Kind: KindEndpointSlice}: "v1",
	{Group: "networking.k8s.io", Kind: KindServiceCIDR}:  "v1",
	{Kind: KindService}:   "v1",
	{Kind: KindSecret}:    "v1",
	{Kind: KindConfigMap}: "v1",
	{Kind: KindPod}:       "v1",
	{Kind: KindNamespace}: "v1",
	{Kind: KindNode}:      "v1",
}

// replacedKinds are kinds of old that mean something to Portico in their new form only.
var replacedKinds = map[schema.GroupKind]string{
	{Group: "extensions", Kind: KindIngress}: "networking.k8s.io/v1 Ingress",
	{Kind: "Endpoints"}:                      "discovery.k8s.io/v1 EndpointSlice, or the Pods themselves",
}

// decoder decodes as kubectl does: case matters, and it tells about fields it does not know.
var decoder = json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, json.SerializerOptions{Strict: true})

// located is an object and the line that its document begins on.
type located struct {
	object metav1.Object
	ref    Ref
	line   int
}

// decoded is what a good file holds: the objects that Portico reads, defaulted and trimmed,
// how many others there are, and what is wrong with single ones.
type decoded struct {
	objects  []located
	problems []Problem
	ignored  int
	blank    bool // there is nothing in the file
}

// decodeFile decodes one file. An error is a *lineError and means that the file cannot be
// used at all: half of a file may be worse than the whole of an older one.
func decodeFile(name string, data []byte) (decoded, error) {
	docs, err := splitDocuments(name, data)
	if err != nil {
		return decoded{}, err
	}
	d := fileDecoder{name: name, out: decoded{blank: true}}
	for _, doc := range docs {
		if err := d.document(doc); err != nil {
			return decoded{}, err
		}
	}
	return d.out, nil
}

type fileDecoder struct {
	name string
	out  decoded
}

func (d *fileDecoder) document(doc document) error {
	raw := doc.text
	if !doc.json {
		if err := checkAliases(doc); err != nil {
			return err
		}
		var err error
		if raw, err = yaml.YAMLToJSONStrict(doc.text); err != nil {
			return yamlError(doc, err)
		}
	}
	if string(raw) == "null" {
		return nil
	}
	d.out.blank = false
	return d.value(part{doc: doc, raw: raw}, schema.GroupVersionKind{})
}

// part is one object within a document.
type part struct {
	doc   document
	raw   []byte
	path  string // of the object in the document: empty, or like items[3]
	depth int
}

func (p part) line(path string) int {
	return lineOfPath(p.doc, strings.Trim(p.path+"."+path, "."))
}

func (p part) errorf(path, format string, args ...any) error {
	return &lineError{line: p.line(path), err: fmt.Errorf(format, args...)}
}

const maxListDepth = 4

// value decodes one object or List. implied is what an item of an IngressList is without
// saying so.
func (d *fileDecoder) value(p part, implied schema.GroupVersionKind) error {
	gvk, err := json.DefaultMetaFactory.Interpret(p.raw)
	if err != nil || gvk.Kind == "" && implied.Kind == "" {
		return p.errorf("", "not a Kubernetes object: it needs apiVersion and kind")
	}
	if gvk.Kind == "" {
		gvk = &implied
	}
	if gvk.Version == "" {
		return p.errorf("kind", "%s has no apiVersion", gvk.Kind)
	}
	if item, ok := itemOf(*gvk); ok {
		return d.list(p, item)
	}
	version, read := readKinds[gvk.GroupKind()]
	replacement, replaced := replacedKinds[gvk.GroupKind()]
	switch {
	case read && version == gvk.Version:
		return d.object(p, *gvk)
	case read:
		d.problem(p, "apiVersion", "apiVersion %s of %s is not supported; the object is not used, write %s",
			gvk.GroupVersion(), gvk.Kind, schema.GroupVersion{Group: gvk.Group, Version: version})
	case replaced:
		d.problem(p, "kind", "%s %s is not read; write %s", gvk.GroupVersion(), gvk.Kind, replacement)
	default:
		d.out.ignored++
	}
	return nil
}

// itemOf says whether gvk is a list that may hold something to read, and what its items are
// where they do not say it.
func itemOf(gvk schema.GroupVersionKind) (item schema.GroupVersionKind, ok bool) {
	name, ok := strings.CutSuffix(gvk.Kind, "List")
	if !ok {
		return item, false
	}
	item = gvk.GroupVersion().WithKind(name)
	if name == "" {
		return schema.GroupVersionKind{}, gvk.Group == ""
	}
	_, ok = readKinds[item.GroupKind()]
	return item, ok
}

func (d *fileDecoder) list(p part, item schema.GroupVersionKind) error {
	if p.depth >= maxListDepth {
		return p.errorf("", "lists within lists, more than %d deep", maxListDepth)
	}
	var list struct {
		Items []stdjson.RawMessage `json:"items"`
	}
	if err := stdjson.Unmarshal(p.raw, &list); err != nil {
		return p.errorf("items", "items is not a list")
	}
	for i, raw := range list.Items {
		path := join(p.path, fmt.Sprintf("items[%d]", i))
		if err := d.value(part{doc: p.doc, raw: raw, path: path, depth: p.depth + 1}, item); err != nil {
			return err
		}
	}
	return nil
}

func (d *fileDecoder) object(p part, gvk schema.GroupVersionKind) error {
	into, _, err := decoder.Decode(p.raw, &gvk, nil)
	strict, isStrict := runtime.AsStrictDecodingError(err)
	if err != nil && !isStrict {
		return p.typeError(gvk, err)
	}
	obj, ok := into.(metav1.Object)
	if !ok {
		return p.errorf("", "%s has no metadata", gvk.Kind)
	}
	if problem := identify(obj, gvk.Kind); problem != "" {
		d.problem(p, "metadata", "%s", problem)
		return nil
	}
	ref := Ref{Kind: gvk.Kind, Namespace: obj.GetNamespace(), Name: obj.GetName()}
	if isStrict {
		if err := d.strictErrors(p, ref, strict.Errors()); err != nil {
			return err
		}
	}
	setDefaults(obj)
	d.out.objects = append(d.out.objects, located{object: trim(obj), ref: ref, line: p.line("")})
	return nil
}

// strictErrors turns fields that do not exist into problems of the object, which is used
// without them; a field that is there twice is an error.
func (d *fileDecoder) strictErrors(p part, ref Ref, errs []error) error {
	for _, err := range errs {
		var field interface{ FieldPath() string }
		path := ""
		if errors.As(err, &field) {
			path = field.FieldPath()
		}
		if !strings.HasPrefix(err.Error(), "unknown field") {
			return p.errorf(path, "%w", err)
		}
		d.out.problems = append(d.out.problems, Problem{
			Object: ref, Field: path,
			Text: fmt.Sprintf("unknown field, ignored (%s line %d)", d.name, p.line(path)),
		})
	}
	return nil
}

// problem is about an object that cannot be named or is not read.
func (d *fileDecoder) problem(p part, path, format string, args ...any) {
	d.out.problems = append(d.out.problems, Problem{
		Object: fileRef(d.name),
		Field:  lineField(p.line(path)),
		Text:   fmt.Sprintf(format, args...),
	})
}

// identify checks the name and settles the namespace; it returns what is wrong.
func identify(obj metav1.Object, kind string) string {
	switch {
	case obj.GetName() == "":
		return kind + " has no metadata.name and is not used"
	case len(validation.IsDNS1123Subdomain(obj.GetName())) > 0:
		return fmt.Sprintf("%s has the metadata.name %q, which Kubernetes does not allow, and is not used", kind, obj.GetName())
	case kind == KindIngressClass || kind == KindNamespace || kind == KindNode || kind == KindServiceCIDR:
		obj.SetNamespace("")
		return ""
	}
	obj.SetNamespace(cmp.Or(obj.GetNamespace(), metav1.NamespaceDefault))
	if len(validation.IsDNS1123Label(obj.GetNamespace())) > 0 {
		return fmt.Sprintf("%s has the metadata.namespace %q, which Kubernetes does not allow, and is not used", kind, obj.GetNamespace())
	}
	return ""
}

// typeError finds the field that err is about. The decoder's own error knows it, and keeps
// it to itself; the standard library's does not.
func (p part) typeError(gvk schema.GroupVersionKind, err error) error {
	into, newErr := scheme.Scheme.New(gvk)
	if newErr != nil {
		return p.errorf("", "%w", err)
	}
	if wrong, ok := errors.AsType[*stdjson.UnmarshalTypeError](stdjson.Unmarshal(p.raw, into)); ok {
		path := pathAt(p.raw, wrong.Offset)
		return p.errorf(path, "%s of %s: want %s, have %s", path, gvk.Kind, wrong.Type, wrong.Value)
	}
	if path := badBase64(p.raw); path != "" {
		return p.errorf(path, "%s of %s is not base64; plain text goes into stringData", path, gvk.Kind)
	}
	return p.errorf("", "%s: %w", gvk.Kind, err)
}

// badBase64 finds the entry of a Secret's data that is none.
func badBase64(raw []byte) string {
	var secret struct {
		Data map[string]string `json:"data"`
	}
	if stdjson.Unmarshal(raw, &secret) != nil {
		return ""
	}
	for _, k := range slices.Sorted(maps.Keys(secret.Data)) {
		if _, err := base64.StdEncoding.DecodeString(secret.Data[k]); err != nil {
			return "data." + k
		}
	}
	return ""
}

func fileRef(name string) Ref { return Ref{Kind: KindFile, Name: name} }

func lineField(line int) string { return fmt.Sprintf("line %d", line) }
