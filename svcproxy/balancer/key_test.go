package balancer

import (
	"bytes"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestHeartbeatKeyIsOneForAll(t *testing.T) {
	secrets := fake.NewClientset().CoreV1().Secrets("ns")
	a, err := heartbeatKey(t.Context(), secrets)
	if err != nil || len(a) != keySize {
		t.Fatal(len(a), err)
	}
	b, err := heartbeatKey(t.Context(), secrets)
	if err != nil || !bytes.Equal(a, b) {
		t.Error("another key", err)
	}
}

func TestHeartbeatKeyTooShort(t *testing.T) {
	client := fake.NewClientset(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: KeySecret}, Data: map[string][]byte{keyField: []byte("short")}})
	if _, err := heartbeatKey(t.Context(), client.CoreV1().Secrets("ns")); err == nil || !strings.Contains(err.Error(), "delete it") {
		t.Error(err)
	}
}
