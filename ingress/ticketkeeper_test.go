package ingress

import (
	"errors"
	"maps"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/portico-ingress/portico/certs"
)

// oneSecret is an API server that has one Secret, and lets nobody write over what he has not
// read.
type oneSecret struct {
	mu      sync.Mutex
	secret  *corev1.Secret
	version int
	writes  int
	fails   error
	// meanwhile runs once before the next write.
	meanwhile func()
}

var secretResource = schema.GroupResource{Resource: "secrets"}

func (o *oneSecret) keeper(log *zap.Logger) (k *ticketKeeper, live *certs.TicketKeys) {
	client := fake.NewClientset()
	client.PrependReactor("*", "secrets", func(a clienttesting.Action) (bool, runtime.Object, error) {
		obj, err := o.react(a)
		return true, obj, err
	})
	cfg := testConfig()
	cfg.Client, cfg.Namespace, cfg.TicketSecret, cfg.Log = client, "portico", "tickets", log
	live = new(certs.TicketKeys)
	k = newTicketKeeper(cfg)
	k.set = func(keys certs.TicketKeys) { *live = keys }
	k.use(certs.NewTicketKeys(time.Time{}), testNow)
	return k, live
}

func (o *oneSecret) react(a clienttesting.Action) (runtime.Object, error) {
	if f := o.meanwhile; f != nil && a.GetVerb() != "get" {
		o.meanwhile = nil
		f()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fails != nil {
		return nil, o.fails
	}
	switch a := a.(type) {
	case clienttesting.UpdateAction: // CreateAction has the same methods
		in := a.GetObject().(*corev1.Secret).DeepCopy()
		switch {
		case a.GetVerb() == "create" && o.secret != nil:
			return nil, apierrors.NewAlreadyExists(secretResource, in.Name)
		case a.GetVerb() == "update" && (o.secret == nil || in.ResourceVersion != o.secret.ResourceVersion):
			return nil, apierrors.NewConflict(secretResource, in.Name, errors.New("changed meanwhile"))
		}
		o.version++
		o.writes++
		in.ResourceVersion = strconv.Itoa(o.version)
		o.secret = in
		return in, nil
	default:
		if o.secret == nil {
			return nil, apierrors.NewNotFound(secretResource, "tickets")
		}
		return o.secret.DeepCopy(), nil
	}
}

func (o *oneSecret) step(t *testing.T, k *ticketKeeper, now time.Time) {
	t.Helper()
	if err := k.step(t.Context(), now); err != nil {
		t.Fatal(err)
	}
}

func TestTicketKeepersShare(t *testing.T) {
	var api oneSecret
	a, keysA := api.keeper(nil)
	b, keysB := api.keeper(nil)
	// Both find nothing; the first makes it and the other reads that.
	api.meanwhile = func() { api.step(t, b, testNow) }
	api.step(t, a, testNow)
	if *keysA != *keysB || api.writes != 1 || api.secret.Type != ticketSecretType || len(api.secret.Data) != 4 {
		t.Fatalf("they do not share: %d writes", api.writes)
	}
	first := *keysA
	now := testNow.Add(certs.TicketKeyRotation - time.Second)
	api.step(t, a, now)
	if api.writes != 1 {
		t.Fatal("rotated too early")
	}
	// Both rotate at the same moment: one wins, the other follows at its next look.
	now = now.Add(time.Second)
	api.meanwhile = func() { api.step(t, b, now) }
	api.step(t, a, now)
	api.step(t, a, now.Add(ticketLook))
	if *keysA != *keysB || api.writes != 2 || keysA.Previous != first.Current || keysA.Current != first.Next {
		t.Fatalf("after %d writes they have %v and %v", api.writes, *keysA, *keysB)
	}
	api.step(t, a, now.Add(certs.TicketKeyRotation-time.Second))
	if api.writes != 2 {
		t.Error("rotated too early the second time")
	}
}

// A replica that starts long after the last rotation rotates at once, and only once.
func TestTicketKeeperFindsOldKeys(t *testing.T) {
	var api oneSecret
	a, _ := api.keeper(nil)
	api.step(t, a, testNow)
	b, keys := api.keeper(nil)
	later := testNow.Add(30 * time.Hour)
	api.step(t, b, later)
	api.step(t, b, later.Add(ticketLook))
	if api.writes != 2 || !keys.Rotated.Equal(later) {
		t.Errorf("%d writes, rotated %s", api.writes, keys.Rotated)
	}
}

// Keys from the future, by a clock that was wrong, are used for their time like others.
func TestTicketKeeperMeetsWrongClocks(t *testing.T) {
	var api oneSecret
	a, _ := api.keeper(nil)
	api.step(t, a, testNow.AddDate(1, 0, 0))
	b, _ := api.keeper(nil)
	api.step(t, b, testNow)
	api.step(t, b, testNow.Add(time.Hour))
	if api.writes != 1 {
		t.Fatalf("%d writes", api.writes)
	}
	api.step(t, b, testNow.Add(certs.TicketKeyRotation))
	if api.writes != 2 {
		t.Error("they are never rotated")
	}
}

func TestTicketKeeperWithoutTheAPI(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	api := oneSecret{fails: apierrors.NewForbidden(secretResource, "tickets", errors.New("no rule"))}
	k, keys := api.keeper(zap.New(core))
	first := *keys
	for i := range 3 {
		k.tell(k.step(t.Context(), testNow.Add(time.Duration(i)*ticketLook)))
	}
	if *keys != first || logs.Len() != 1 || !strings.Contains(logs.All()[0].Message, "not shared") {
		t.Errorf("%d lines in the log", logs.Len())
	}
	if err := k.step(t.Context(), testNow.Add(certs.TicketKeyRotation)); err == nil || keys.Previous != first.Current {
		t.Error("keys of its own are not rotated")
	}
	// With rights it shares, and without them again it keeps what is shared.
	api.fails = nil
	now := testNow.Add(certs.TicketKeyRotation + ticketLook)
	api.step(t, k, now)
	shared := *keys
	api.fails = errors.New("down")
	if err := k.step(t.Context(), now.Add(2*certs.TicketKeyRotation)); err == nil || *keys != shared {
		t.Error("shared keys were rotated alone")
	}
}

func TestTicketKeeperLeavesOthersSecretsAlone(t *testing.T) {
	var good oneSecret
	a, _ := good.keeper(nil)
	good.step(t, a, testNow)
	for name, change := range map[string]func(*corev1.Secret){
		"another type": func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque },
		"broken":       func(s *corev1.Secret) { delete(s.Data, "next") },
	} {
		secret := good.secret.DeepCopy()
		secret.Data = maps.Clone(secret.Data)
		change(secret)
		api := oneSecret{secret: secret}
		k, keys := api.keeper(nil)
		own := *keys
		err := k.step(t.Context(), testNow.Add(time.Minute))
		if !errors.Is(err, errNotTickets) || api.writes != 0 || *keys != own {
			t.Errorf("%s: %v, %d writes", name, err, api.writes)
		}
	}
}

func TestTicketKeeperWithoutACluster(t *testing.T) {
	cfg := testConfig()
	cfg.TicketSecret = "tickets"
	k := newTicketKeeper(cfg)
	k.use(certs.NewTicketKeys(testNow), testNow)
	first := k.keys
	for _, now := range []time.Time{testNow, testNow.Add(certs.TicketKeyRotation)} {
		if err := k.step(t.Context(), now); err != nil {
			t.Fatal(err)
		}
	}
	if k.keys.Previous != first.Current {
		t.Error("the keys are not rotated")
	}
}
