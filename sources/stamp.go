package sources

import (
	"io/fs"
	"os"
	"time"
)

// racyAge is how old a file's modification time must be for an equal stamp to prove equal content: two writes within one
// tick of the file system's clock leave the same one. The coarsest ticks are the 2 s of FAT. Git calls such entries
// racy: https://git-scm.com/docs/racy-git
const racyAge = 3 * time.Second

// stamp is what tells without reading that a file is another one or was written to. The zero value is no file's.
type stamp struct {
	info fs.FileInfo
}

// same tells whether nothing that the file system keeps differs.
func (s stamp) same(t stamp) bool {
	return s.info != nil && t.info != nil &&
		s.info.Size() == t.info.Size() && s.info.ModTime().Equal(t.info.ModTime()) &&
		changeTime(s.info) == changeTime(t.info) && os.SameFile(s.info, t.info)
}

// age is how long ago the file was written to, by clocks that may differ: negative for the future.
func (s stamp) age(now time.Time) time.Duration {
	return now.Sub(s.info.ModTime())
}

// racy tells whether a write right after a reading at now could have left the same stamp.
func (s stamp) racy(now time.Time) bool {
	return s.age(now) < racyAge
}
