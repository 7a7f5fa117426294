package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// stopTime is how long a component has to stop by itself.
const stopTime = 15 * time.Second

// components are all programs of the cluster, in the order in which they start.
func (c *Cluster) components() []component {
	list := []component{c.etcd(), c.apiServer()}
	if c.cfg.Bare {
		return list
	}
	list = append(list, c.controllerManager(), c.scheduler())
	for _, n := range c.nodes() {
		list = append(list, n.components()...)
	}
	return list
}

func (c *Cluster) component(name string) (component, error) {
	var known []string
	for _, p := range c.components() {
		if p.name == name {
			return p, nil
		}
		known = append(known, p.name)
	}
	return component{}, fmt.Errorf("no component %q; there are %q", name, known)
}

// start starts a component and waits until it works.
func (c *Cluster) start(ctx context.Context, p component) error {
	if err := c.startProcess(p); err != nil {
		return err
	}
	return c.waitReady(ctx, p)
}

// Start starts a component that was stopped, such as kube-apiserver or
// node1/kubelet, and waits until it works.
func (c *Cluster) Start(ctx context.Context, name string) error {
	p, err := c.component(name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, bootTime, fmt.Errorf("%s does not work after %s", name, bootTime))
	defer cancel()
	if err := c.start(ctx, p); err != nil {
		return err
	}
	if name == APIServer && !c.cfg.Bare {
		return c.restartManagers(ctx)
	}
	return nil
}

// restartManagers starts the managers anew, after the API server was away. With
// leader election they would have ended by themselves when their lease ran out;
// as it is they would wait a minute and more before they try again.
func (c *Cluster) restartManagers(ctx context.Context) error {
	for _, p := range []component{c.controllerManager(), c.scheduler()} {
		if _, err := os.Stat(c.cfg.pidFile(p.name)); err != nil {
			continue // stopped on purpose
		}
		if err := c.endProcess(ctx, p.name, 0); err != nil {
			return err
		}
		if err := c.start(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// Stop stops a component as an operator would, and waits until it is gone.
func (c *Cluster) Stop(ctx context.Context, name string) error {
	p, err := c.component(name)
	if err != nil {
		return err
	}
	grace := p.grace
	if grace == 0 {
		grace = stopTime
	}
	return c.endProcess(ctx, name, grace)
}

// Kill ends a component at once.
func (c *Cluster) Kill(ctx context.Context, name string) error {
	if _, err := c.component(name); err != nil {
		return err
	}
	return c.endProcess(ctx, name, 0)
}

// KillNode takes the power from a node: everything on it ends at once, and its
// network falls silent.
func (c *Cluster) KillNode(ctx context.Context, name string) error {
	n, err := c.node(name)
	if err != nil {
		return err
	}
	if err := n.killAll(ctx); err != nil {
		return err
	}
	// What Pods were plugged into goes as well; a real machine that boots again
	// does not find it.
	return c.cfg.resetHost(ctx, n)
}

// StartNode turns a node that lost its power on again.
func (c *Cluster) StartNode(ctx context.Context, name string) error {
	n, err := c.node(name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, bootTime, fmt.Errorf("%s is not up after %s", name, bootTime))
	defer cancel()
	if err := n.boot(ctx); err != nil {
		return err
	}
	return n.join(ctx)
}

// ComponentStatus tells whether a component works: nil if so.
type ComponentStatus struct {
	Component string
	Err       error
}

// Status tells for each component whether it works.
func (c *Cluster) Status(ctx context.Context) []ComponentStatus {
	var list []ComponentStatus
	for _, p := range c.components() {
		s := ComponentStatus{Component: p.name}
		if id, err := readPIDFile(c.cfg.pidFile(p.name)); err != nil || !id.alive() {
			s.Err = errors.New("not running")
		} else {
			s.Err = p.ready(ctx)
		}
		list = append(list, s)
	}
	return list
}

func (c *Cluster) node(name string) (*node, error) {
	for _, n := range c.nodes() {
		if n.name == name {
			return n, nil
		}
	}
	return nil, fmt.Errorf("no node %q; there are %q", name, c.Nodes())
}
