package history

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/internal/fsys"
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
		if strings.HasPrefix(e.Name(), filepath.Base(path)+fsys.DamagedMark) {
			n++
		}
	}
	if n >= maxAside {
		return "", fmt.Errorf("%d damaged files were set aside already, want fewer than %d: look at the disk, and remove them", n, maxAside)
	}
	return fsys.MoveAside(path, now, os.Rename)
}
