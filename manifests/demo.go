package manifests

import (
	"embed"
	"io/fs"
)

//go:embed demo/*.yaml
var demo embed.FS

// Demo is the folder manifests/demo, as it was when the binary was built.
func Demo() fs.FS {
	sub, err := fs.Sub(demo, "demo")
	if err != nil {
		panic(err) // the pattern above names the folder
	}
	return sub
}
