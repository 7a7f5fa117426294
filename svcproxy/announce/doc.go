// Package announce makes this node the one that LoadBalancer addresses lead to: it decides
// which node answers for an address, keeps two nodes from ever doing so at once, and answers
// ARP and NDP for addresses that are on no interface. README.md has the picture.
package announce
