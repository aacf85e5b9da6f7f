package history

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// maxAside is how many damaged files may lie beside the file: with a disk that damages one after the other they would
// fill it.
const maxAside = 10

// setAside renames the file at path to PATH.damaged-TIME, or a name after that if it is taken.
func setAside(path string, now time.Time) (string, error) {
	names, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	n := 0
	for _, e := range names {
		if strings.HasPrefix(e.Name(), filepath.Base(path)+".damaged-") {
			n++
		}
	}
	if n >= maxAside {
		return "", fmt.Errorf("%d damaged files were set aside already, want fewer than %d: look at the disk, and remove them", n, maxAside)
	}
	stem := path + ".damaged-" + now.UTC().Format("20060102T150405Z")
	name := stem
	for n := 2; ; n++ {
		if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return "", err
		}
		name = fmt.Sprintf("%s-%d", stem, n)
	}
	return name, os.Rename(path, name)
}
