package balancer

import (
	"context"
	"crypto/rand"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
)

const (
	// keyField of KeySecret has the key.
	keyField = "key"
	// keySize is what a new key has, minimumKey what any has to have, in bytes.
	keySize, minimumKey = 32, 16
)

// heartbeatKey reads the key that all nodes share. The first node to ask makes it: the API
// server takes one.
func heartbeatKey(ctx context.Context, secrets coreclient.SecretInterface) ([]byte, error) {
	secret, err := secrets.Get(ctx, KeySecret, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		key := make([]byte, keySize)
		rand.Read(key)
		immutable := true
		secret, err = secrets.Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: KeySecret}, Immutable: &immutable,
			Type: corev1.SecretTypeOpaque, Data: map[string][]byte{keyField: key},
		}, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			secret, err = secrets.Get(ctx, KeySecret, metav1.GetOptions{})
		}
	}
	if err != nil {
		return nil, fmt.Errorf("key of the heartbeats between nodes: %w", err)
	}
	if key := secret.Data[keyField]; len(key) >= minimumKey {
		return key, nil
	}
	return nil, fmt.Errorf("key of the heartbeats between nodes: Secret %s has no %q of at least %d bytes; delete it, and a new one is made",
		KeySecret, keyField, minimumKey)
}
