package nft

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// accountingFile switches the counters of connection tracking on, for the flows that begin then. It
// is of the network namespace of whoever opens it.
const accountingFile = "/proc/sys/net/netfilter/nf_conntrack_acct"

// accountingTable is empty. That the kernel has it says that this program has switched the counters on, and it is gone
// when they are, too: with the network namespace.
const (
	accountingTable   = "portico-accounting"
	accountingComment = "portico switched nf_conntrack_acct on; its cleanup switches it off"
)

// CountFlows has the kernel count packets and bytes of each flow, which Flow.Refused goes by, too. The kernel remembers that
// it did not before.
func CountFlows() error {
	now, err := accounting()
	switch {
	case err == nil && now == "1":
		return nil // a Pod may read it, and not write it
	case err == nil:
		if err = markAccounting((*batch).addTable); err == nil {
			if err = os.WriteFile(accountingFile, []byte("1\n"), 0o600); err != nil {
				err = errors.Join(err, unmarkAccounting())
			}
		}
	}
	if err != nil {
		return fmt.Errorf("nft: connections are not counted: set sysctl net.netfilter.nf_conntrack_acct=1: %w", err)
	}
	return nil
}

// UncountFlows undoes CountFlows. Where others had switched the counters on before, they stay so.
func UncountFlows() error {
	marked, err := accountingMarked()
	if err == nil && marked {
		if now, reading := accounting(); reading == nil && now != "0" {
			err = os.WriteFile(accountingFile, []byte("0\n"), 0o600)
		}
		if err == nil {
			err = unmarkAccounting()
		}
	}
	if err != nil {
		return fmt.Errorf("nft: sysctl net.netfilter.nf_conntrack_acct=0: %w", err)
	}
	return nil
}

// accounting is the setting.
func accounting() (string, error) {
	now, err := os.ReadFile(accountingFile)
	return strings.TrimSpace(string(now)), err
}

// markAccounting writes one transaction about the table.
func markAccounting(write func(b *batch, comment string)) error {
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.close()
	b := newBatch(c, accountingTable)
	write(b, accountingComment)
	return c.transact(b.finish())
}

func unmarkAccounting() error {
	return markAccounting(func(b *batch, _ string) { b.deleteTable(accountingTable) })
}

// accountingMarked tells whether the kernel has the table, and it is ours.
func accountingMarked() (ours bool, err error) {
	if _, err := os.Stat(accountingFile); errors.Is(err, fs.ErrNotExist) {
		return false, nil // nothing is tracked
	}
	c, err := dial()
	if err != nil {
		return false, err
	}
	defer c.close()
	b := &batch{conn: c}
	b.beginNFT(unix.NFT_MSG_GETTABLE, unix.NLM_F_ACK)
	b.buf = appendAttrName(b.buf, unix.NFTA_TABLE_NAME, accountingTable)
	b.end()
	err = c.ask(b.buf, c.seq, func(m message) {
		if _, ok := m.nftType(); !ok {
			return
		}
		for typ, v := range attrs(m.body[genHead:]) {
			ours = ours || typ == nftaTableUserdata && commentOf(v) == accountingComment
		}
	})
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	return ours, err
}
