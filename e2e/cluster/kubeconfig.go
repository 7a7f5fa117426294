package cluster

import (
	"fmt"
	"os"
)

// pkiFile is a file of the cluster's certificate folder.
func (c *Config) pkiFile(name string) string { return c.file("pki", name) }

// Kubeconfig is the file with which an administrator speaks to the cluster, from
// any of its hosts.
func (c *Cluster) Kubeconfig() string { return c.cfg.kubeconfig("admin") }

// kubeconfig is the file for the holder of the certificate called user.
func (c *Config) kubeconfig(user string) string { return c.file("pki", user+".kubeconfig") }

func (c *Config) writeKubeconfigs() error {
	users := []string{"admin", "kube-controller-manager", "kube-scheduler", "kube-proxy"}
	for n := 1; n <= c.Nodes; n++ {
		users = append(users, c.node(n))
	}
	for _, u := range users {
		content := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: %[1]s
  cluster:
    server: %[2]s
    certificate-authority: %[3]s
users:
- name: %[4]s
  user:
    client-certificate: %[5]s
    client-key: %[6]s
contexts:
- name: %[1]s
  context: {cluster: %[1]s, user: %[4]s}
current-context: %[1]s
`, c.Name, c.apiURL(), c.pkiFile("ca.crt"), u, c.pkiFile(u+".crt"), c.pkiFile(u+".key"))
		if err := os.WriteFile(c.kubeconfig(u), []byte(content), 0o600); err != nil {
			return fmt.Errorf("write kubeconfig of %s: %w", u, err)
		}
	}
	return nil
}
