package main

import (
	"errors"

	"go.uber.org/zap"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/portico-ingress/portico/manifests"
)

// source is where the objects come from. Client is nil where there is no cluster: then nobody
// writes status or Events.
type source struct {
	manifests.Source
	client kubernetes.Interface
}

// newSource is not for the demo, which has a folder of its own that is not there yet.
func newSource(flags *serveFlags, log *zap.Logger) (source, error) {
	if flags.demo {
		return source{}, nil
	}
	if flags.changed("manifests") {
		return newFolder(flags.manifests, log, flags.watchNamespaces...), nil
	}
	config, err := clusterConfig(flags)
	if err != nil {
		return source{}, err
	}
	config.UserAgent = "portico/" + version
	cluster, err := manifests.NewClusterConfig(config)
	if err != nil {
		return source{}, usageError{err}
	}
	cluster.Namespaces, cluster.Log = flags.watchNamespaces, log.Named("cluster")
	return source{manifests.NewCluster(cluster), cluster.Client}, nil
}

// newFolder reads all namespaces if none is named.
func newFolder(dir string, log *zap.Logger, namespaces ...string) source {
	return source{Source: manifests.NewFiles(manifests.FilesConfig{Dir: dir, Namespaces: namespaces, Log: log.Named("files")})}
}

func clusterConfig(flags *serveFlags) (*rest.Config, error) {
	if flags.changed("kubeconfig") {
		config, err := clientcmd.BuildConfigFromFlags("", flags.kubeconfig)
		if err != nil {
			return nil, wrongValue("kubeconfig", flags.kubeconfig, err)
		}
		return config, nil
	}
	config, err := rest.InClusterConfig()
	if errors.Is(err, rest.ErrNotInCluster) {
		return nil, usagef("nothing to serve: this is not a Pod in a cluster; give --manifests DIR, --kubeconfig FILE or --demo")
	}
	if err != nil {
		return nil, usagef("the cluster that this Pod runs in: %w", err)
	}
	return config, nil
}
