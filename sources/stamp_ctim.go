//go:build aix || dragonfly || linux || openbsd || solaris

package sources

import (
	"io/fs"
	"syscall"
)

// changeTime is the time of the last change of a file or its metadata, which no program can set, in nanoseconds.
func changeTime(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int64(st.Ctim.Sec)*1e9 + int64(st.Ctim.Nsec)
	}
	return 0
}
