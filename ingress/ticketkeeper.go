package ingress

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/portico-ingress/portico/certs"
)

const (
	// ticketSecretType is that of the Secret with the keys: one of another type is somebody
	// else's, and is left alone.
	ticketSecretType corev1.SecretType = "portico.dev/session-ticket-keys" //nolint:gosec // a type, no credential
	// ticketLook is how often the Secret is read. A key is known for TicketKeyRotation before
	// it is used, so a watch would bring nothing, and a get of one Secret needs fewer rights.
	ticketLook = time.Minute
	// ticketTimeout bounds one call of the API.
	ticketTimeout = 10 * time.Second
)

// ticketKeeper keeps the keys of session tickets equal to what a Secret says, and makes new
// ones in it when their time has come. Every replica does: the API server lets one of two that
// write at the same time win, and the other one reads what it wrote.
//
// Whether keys are old is told by the clock on the wall only once, when the Secret is first
// seen. From then on it counts how long they have not changed, which no step of a clock can
// hasten or delay.
type ticketKeeper struct {
	secrets corev1client.SecretInterface // nil: the keys stay here
	name    string
	set     func(certs.TicketKeys)
	log     *zap.Logger

	keys   certs.TicketKeys
	shared bool      // keys are those of the Secret
	since  time.Time // when they were first seen, on the monotonic clock
	failed string    // what went wrong last, so that it is told once
}

func newTicketKeeper(cfg *Config) *ticketKeeper {
	k := &ticketKeeper{name: cfg.TicketSecret, set: cfg.Certificates.SetTicketKeys, log: cfg.log()}
	if cfg.Client != nil {
		k.secrets = cfg.Client.CoreV1().Secrets(cfg.Namespace)
	}
	return k
}

// run keeps the keys until ctx ends.
func (k *ticketKeeper) run(ctx context.Context) {
	k.use(certs.NewTicketKeys(time.Now()), time.Now()) // until those of the Secret are known
	look := time.NewTicker(ticketLook)
	defer look.Stop()
	for {
		if err := k.step(ctx, time.Now()); ctx.Err() == nil {
			k.tell(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}

// tell logs what went wrong, once.
func (k *ticketKeeper) tell(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != k.failed {
		k.log.Warn("keys of TLS session tickets are not shared: sessions resume only where they began", zap.String("secret", k.name), zap.Error(err))
	}
	k.failed = text
}

func (k *ticketKeeper) use(keys certs.TicketKeys, now time.Time) {
	k.keys, k.since = keys, now
	k.set(keys)
}

// step reads the Secret, or makes it, and rotates if it is time.
func (k *ticketKeeper) step(ctx context.Context, now time.Time) error {
	if k.secrets == nil {
		k.alone(now)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, ticketTimeout)
	defer cancel()
	err := k.follow(ctx, now)
	if apierrors.IsNotFound(err) {
		err = k.create(ctx, now)
	}
	if apierrors.IsAlreadyExists(err) { // somebody else was faster
		err = k.follow(ctx, now)
	}
	if err != nil {
		k.alone(now)
	}
	return err
}

var errNotTickets = errors.New("the Secret is of another type, or broken; delete it, or choose another name (--session-ticket-secret)")

// follow takes the keys of the Secret.
func (k *ticketKeeper) follow(ctx context.Context, now time.Time) error {
	secret, err := k.secrets.Get(ctx, k.name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	keys, err := certs.ParseTicketKeys(secret.Data)
	if err != nil || secret.Type != ticketSecretType {
		return errors.Join(errNotTickets, err)
	}
	if !k.shared || keys != k.keys {
		first := !k.shared
		k.shared = true
		k.use(keys, now)
		if !first || now.Sub(keys.Rotated) < certs.TicketKeyRotation {
			return nil
		}
	} else if !k.due(now) {
		return nil
	}
	return k.rotate(ctx, secret, now)
}

// due tells whether the keys have been here for long enough.
func (k *ticketKeeper) due(now time.Time) bool { return now.Sub(k.since) >= certs.TicketKeyRotation }

// rotate writes the next keys. If somebody else was faster, theirs are read soon.
func (k *ticketKeeper) rotate(ctx context.Context, secret *corev1.Secret, now time.Time) error {
	keys := k.keys.Rotate(now.Truncate(time.Second).UTC())
	secret = secret.DeepCopy()
	secret.Data = keys.Data()
	_, err := k.secrets.Update(ctx, secret, metav1.UpdateOptions{})
	switch {
	case apierrors.IsConflict(err):
		return nil
	case err != nil:
		return err
	}
	k.use(keys, now)
	return nil
}

// create makes the Secret with the keys that are in use here.
func (k *ticketKeeper) create(ctx context.Context, now time.Time) error {
	keys := k.keys
	keys.Rotated = now.Truncate(time.Second).UTC()
	_, err := k.secrets.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: k.name}, Type: ticketSecretType, Data: keys.Data(),
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	k.shared = true
	k.use(keys, now)
	return nil
}

// alone rotates keys that were never shared. Shared ones stay: those of others do, too.
func (k *ticketKeeper) alone(now time.Time) {
	if !k.shared && k.due(now) {
		k.use(k.keys.Rotate(now), now)
	}
}
