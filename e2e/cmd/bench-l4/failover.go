package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-ingress/portico/e2e/cluster"
)

const (
	balanced = "balanced" // the LoadBalancer Service
	// hasty is how long a client waits for one connection before it tries another, while nobody has
	// the address.
	hasty = 100 * time.Millisecond
	// patient is how long it waits while the address moves in order: one SYN may be sent again.
	patient = 3 * time.Second
	// steady is how long an address has to stay where it is before something is done to it.
	steady = 3 * time.Second
	// after is how long a client goes on connecting when an address has moved.
	after = 2 * time.Second
)

// failover measures how long a LoadBalancer address is away: Portico runs on three nodes, and a
// client on their segment connects.
func (b *bench) failover(ctx context.Context) error {
	for _, node := range b.up.Nodes() {
		b.extra = append(b.extra, b.portico(node, "", "--lb-pool", cluster.LoadBalancerCIDR4))
	}
	defer func() {
		for _, c := range b.extra {
			c.stop()
		}
		b.extra = nil
	}()
	for _, c := range b.extra {
		if err := b.join(ctx, c); err != nil {
			return err
		}
	}
	vip, err := b.balance(ctx)
	if err != nil {
		return err
	}
	for range b.cfg.rounds {
		if err := errors.Join(b.crash(ctx, vip), ctx.Err()); err != nil {
			return err
		}
		if err := errors.Join(b.move(ctx, vip), ctx.Err()); err != nil {
			return err
		}
	}
	if err := b.objects.client.CoreV1().Services(namespace).Delete(ctx, balanced, metav1.DeleteOptions{}); err != nil {
		return err
	}
	return b.gone(ctx)
}

// gone waits until the finalizer has been removed, which takes one that runs.
func (b *bench) gone(ctx context.Context) error {
	return b.until(ctx, "the LoadBalancer Service is gone", func() error {
		if _, err := b.objects.client.CoreV1().Services(namespace).Get(ctx, balanced, metav1.GetOptions{}); err == nil {
			return errors.New("it is there")
		}
		return nil
	})
}

// join starts svcproxy on a node that has lost everything.
func (b *bench) join(ctx context.Context, c *candidate) error {
	if _, err := b.up.Exec(ctx, c.node, "nft", "flush", "ruleset"); err != nil {
		return err
	}
	return c.start(ctx, b.up)
}

// balance makes the Service, and gives its address when it answers.
func (b *bench) balance(ctx context.Context) (vip netip.AddrPort, err error) {
	s := newService(balanced, netip.AddrFrom4([4]byte{10, 96, 1, 2}))
	s.Spec.Type = corev1.ServiceTypeLoadBalancer
	if err := b.objects.create(ctx, s, b.server(0)); err != nil {
		return vip, err
	}
	err = b.until(ctx, "the LoadBalancer Service has an address", func() error {
		got, err := b.objects.client.CoreV1().Services(namespace).Get(ctx, balanced, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if len(got.Status.LoadBalancer.Ingress) == 0 {
			return errors.New("none yet")
		}
		addr, err := netip.ParseAddr(got.Status.LoadBalancer.Ingress[0].IP)
		vip = netip.AddrPortFrom(addr, servicePort)
		return err
	})
	return vip, err
}

// until tries again until it works.
func (b *bench) until(ctx context.Context, what string, try func() error) error {
	for begun := time.Now(); ; {
		err := try()
		if err == nil {
			return nil
		}
		if time.Since(begun) > time.Minute {
			return fmt.Errorf("not within a minute: %s: %w", what, err)
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// steadyOwner waits until an address has been at one node for a while, and gives the svcproxy
// there.
func (b *bench) steadyOwner(ctx context.Context, vip netip.AddrPort) (owner *candidate, err error) {
	since := time.Now()
	err = b.until(ctx, "the address stays where it is", func() error {
		now, err := b.owner(ctx, vip)
		if now != owner || err != nil {
			owner, since = now, time.Now()
		}
		if err == nil && time.Since(since) < steady {
			err = errors.New("it has moved")
		}
		return err
	})
	return owner, err
}

// owner is whose Ethernet address the client has for an address that answers.
func (b *bench) owner(ctx context.Context, vip netip.AddrPort) (*candidate, error) {
	err := b.up.Do(cluster.ClientHost, func() error {
		_, err := ask(vip, time.Second)
		return err
	})
	if err != nil {
		return nil, err
	}
	out, err := b.up.ExecClient(ctx, "ip", "neigh", "show", vip.Addr().String())
	if err != nil {
		return nil, err
	}
	for _, c := range b.extra {
		mac, err := b.mac(c.node)
		if err != nil {
			return nil, err
		}
		if strings.Contains(out, mac) {
			return c, nil
		}
	}
	return nil, fmt.Errorf("nobody has it: %s", out)
}

func (b *bench) mac(node string) (mac string, err error) {
	err = b.up.Do(node, func() error {
		link, err := net.InterfaceByName("eth0")
		if err == nil {
			mac = link.HardwareAddr.String()
		}
		return err
	})
	return mac, err
}

// crash takes the power from the node that has the address: its cable is out and its svcproxy
// killed at once.
func (b *bench) crash(ctx context.Context, vip netip.AddrPort) error {
	owner, err := b.steadyOwner(ctx, vip)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := b.up.Unplug(ctx, owner.node); err != nil {
		return err
	}
	owner.kill()
	var took time.Duration
	err = b.up.Do(cluster.ClientHost, func() error {
		for {
			_, err := ask(vip, hasty)
			took = time.Since(began)
			if err == nil || took > time.Minute || ctx.Err() != nil {
				return err
			}
		}
	})
	if err != nil {
		return err
	}
	b.report.crashes = append(b.report.crashes, took)
	fmt.Fprintf(b.log, "%10s  %s without power: %v until the client's next connection\n", owner.name, owner.node, took)
	if err := b.up.Plug(ctx, owner.node); err != nil {
		return err
	}
	return b.join(ctx, owner)
}

// move stops the svcproxy that has the address, in order, while a client connects all the time.
func (b *bench) move(ctx context.Context, vip netip.AddrPort) error {
	owner, err := b.steadyOwner(ctx, vip)
	if err != nil {
		return err
	}
	watch, stop := context.WithCancel(ctx)
	defer stop()
	var m moves
	var worst error
	done := make(chan error, 1)
	go func() {
		done <- b.up.Do(cluster.ClientHost, func() error {
			for watch.Err() == nil {
				began := time.Now()
				_, err := ask(vip, patient)
				m.connections++
				m.longest = max(m.longest, time.Since(began))
				if err != nil {
					m.failed++
					worst = err
				}
				time.Sleep(time.Millisecond)
			}
			return nil
		})
	}()
	owner.stop()
	err = b.until(ctx, "the address has moved", func() error {
		next, err := b.owner(ctx, vip)
		if err == nil && next == owner {
			err = errors.New("it is where it was")
		}
		return err
	})
	err = errors.Join(err, pause(ctx, after))
	stop()
	if err := errors.Join(err, <-done); err != nil {
		return err
	}
	b.report.moves = append(b.report.moves, m)
	fmt.Fprintf(b.log, "%10s  %s stopped in order: %d of %d connections failed (%v), the longest took %v\n", owner.name, owner.node, m.failed, m.connections, worst, m.longest)
	return b.join(ctx, owner)
}
