package nft

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// accountingFile says whether connection tracking counts, for the flows that begin then. It is of the network
// namespace of whoever opens it.
const accountingFile = "/proc/sys/net/netfilter/nf_conntrack_acct"

// accountingTable has one rule, which no packet meets. That the kernel has it says that this program has switched the
// counters on, and it is gone when they are, too: with the network namespace.
const (
	accountingTable   = "portico-accounting"
	accountingComment = "portico switched nf_conntrack_acct on; its cleanup switches it off"
)

// countingChain switches the counters on: the kernel does that when it is given a rule that asks for one
// (net/netfilter/nft_ct.c, nft_ct_get_init). A Pod can do so; its file of the setting cannot be written.
var countingChain = chain{name: "counting", rules: []rule{{
	why: accountingComment, exprs: []expr.Any{&expr.Ct{Key: expr.CtKeyPKTS, Register: unix.NFT_REG_1}},
}}}

// CountFlows has the kernel count packets and bytes of each flow, which Flow.Refused goes by, too. The kernel remembers that
// it did not before. It takes CAP_NET_ADMIN, and no file that can be written.
func CountFlows() error {
	now, err := accounting()
	if err == nil && now == "1" {
		return nil
	}
	if err == nil {
		err = markAccounting(func(b *batch, comment string) {
			b.addTable(comment)
			b.addChain(countingChain)
			b.flushChain(countingChain.name) // of a process before this one
			b.addRule(countingChain.name, countingChain.rules[0])
		})
	}
	if err == nil {
		if now, err = accounting(); err == nil && now != "1" {
			err = errors.Join(errors.New("the kernel leaves it off"), unmarkAccounting())
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
