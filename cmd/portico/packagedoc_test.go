package main

import (
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// Exactly one file of a package says what the package is.
func TestPackageComments(t *testing.T) {
	for _, p := range listPackages(t) {
		var with []string
		for _, file := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Error(err)
				continue
			}
			if f.Doc != nil {
				with = append(with, file)
				checkPackageComment(t, p, f.Doc.Text())
			}
		}
		if len(with) != 1 {
			t.Errorf("package %s: %d files have a package comment %q, want one", p.room(), len(with), with)
		}
	}
}

func checkPackageComment(t *testing.T, p listedPackage, text string) {
	t.Helper()
	want := "Package " + p.Name + " "
	if p.Name == "main" {
		base := filepath.Base(p.Dir)
		want = strings.ToUpper(base[:1]) + base[1:] + " "
	}
	if !strings.HasPrefix(text, want) {
		t.Errorf("package %s: its comment begins with %.40q, want %q", p.room(), text, want)
	}
}
