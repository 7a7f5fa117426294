package announce

import (
	"context"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
)

// recordAnnotation holds the record in the Lease.
const recordAnnotation = "portico.dev/announcements"

// A Store keeps the record of who holds what. Both methods must be linearizable: what Get
// returns includes every Put that was answered before Get was called.
type Store interface {
	// Get returns the record and its version; neither, if there is none yet.
	Get(ctx context.Context) (body []byte, version string, err error)
	// Put replaces the version given, "" to create it. It returns ErrRefused if the record has
	// another version; any other error means that nobody knows whether it was replaced.
	Put(ctx context.Context, body []byte, version string) (newVersion string, err error)
}

// LeaseStore keeps the record in an annotation of one Lease, and writes it by resourceVersion.
type LeaseStore struct {
	Leases coordinationclient.LeaseInterface
	// Name is the Lease's, Identity this node's.
	Name, Identity string
}

// Get implements Store. A read without a resourceVersion is one of the latest.
func (s *LeaseStore) Get(ctx context.Context) ([]byte, string, error) {
	lease, err := s.Leases.Get(ctx, s.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	return []byte(lease.Annotations[recordAnnotation]), lease.ResourceVersion, nil
}

// Put implements Store.
func (s *LeaseStore) Put(ctx context.Context, body []byte, version string) (string, error) {
	now := metav1.NewMicroTime(time.Now())
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Name: s.Name, ResourceVersion: version,
			Annotations: map[string]string{recordAnnotation: string(body)},
		},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &s.Identity, RenewTime: &now},
	}
	var stored *coordinationv1.Lease
	var err error
	if version == "" {
		stored, err = s.Leases.Create(ctx, lease, metav1.CreateOptions{})
	} else {
		stored, err = s.Leases.Update(ctx, lease, metav1.UpdateOptions{})
	}
	switch {
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err):
		return "", ErrRefused
	case err != nil:
		return "", err
	}
	return stored.ResourceVersion, nil
}
