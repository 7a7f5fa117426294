// Image writes a container image of one static program, without Docker.
//
//	go run ./cmd/image --binary ../bin/portico --name localhost/portico:dev --entrypoint /portico --out ../bin/portico.tar
package main

import (
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/portico-ingress/portico/e2e/image"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(2)
	}
}

func run(args []string, stdout io.Writer) error {
	var c image.Config
	var out string
	fs := flag.NewFlagSet("image", flag.ContinueOnError)
	fs.StringVar(&c.Binary, "binary", "", "static `program` to put into the image")
	fs.StringVar(&c.Name, "name", "", "full `name` with tag, such as localhost/portico:dev")
	fs.StringVar(&c.Entrypoint, "entrypoint", "", "`path` of the program in the image (default: / and its file name)")
	fs.StringVar(&c.User, "user", image.DefaultUser, "`uid:gid` the program runs as")
	fs.StringVar(&c.Arch, "arch", "", "architecture of the program (default: this machine's)")
	fs.StringVar(&out, "out", "", "tar `file` to write")
	if err := fs.Parse(args); err != nil {
		return err
	}
	c.Args = fs.Args()
	if out == "" {
		return fmt.Errorf("no --out given")
	}
	if err := image.WriteFile(c, out); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "wrote %s as %s\n", c.Name, out)
	return nil
}
