//go:build darwin || freebsd || netbsd

package sources

import (
	"io/fs"
	"syscall"
)

// changeTime is the time of the last change of a file or its metadata, which no program can set, in nanoseconds.
func changeTime(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int64(st.Ctimespec.Sec)*1e9 + int64(st.Ctimespec.Nsec)
	}
	return 0
}
