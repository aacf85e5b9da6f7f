// Command plots draws the pictures of docs/guard: what the guard does on simulated
// traffic, and what the rules in common use do.
//
//	go run ./plots [-out ../docs/guard] [-only evidence,outage,delay,late,rules]
//
// They come out the same every time, but for the guard's own cells in rules, which
// vary a little. All of them take two or three minutes.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

type picture struct {
	name string
	draw func() *svg
}

var pictures = []picture{
	{"evidence", evidence},
	{"outage", outage},
	{"delay", delay},
	{"late", late},
	{"rules", rules},
}

func main() {
	log.SetFlags(0)
	out := flag.String("out", "../docs/guard", "directory for the pictures")
	only := flag.String("only", "", "names of pictures, by comma; all of them if empty")
	flag.Parse()
	if err := run(*out, *only); err != nil {
		log.Fatal(err)
	}
}

func run(out, only string) error {
	chosen := pictures
	if only != "" {
		chosen = nil
		for name := range strings.SplitSeq(only, ",") {
			i := slices.IndexFunc(pictures, func(p picture) bool { return p.name == name })
			if i < 0 {
				return fmt.Errorf("-only: no picture %q", name)
			}
			chosen = append(chosen, pictures[i])
		}
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for _, p := range chosen {
		began := time.Now()
		path := filepath.Join(out, p.name+".svg")
		if err := os.WriteFile(path, []byte(p.draw().text()), 0o644); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "%s, %.0f s\n", path, time.Since(began).Seconds())
	}
	return nil
}
