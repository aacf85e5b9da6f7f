package state

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/internal/fsys"
)

// journal is a file of lines that is only appended to, or replaced as a whole. After an error of load or append it is
// closed, and load has to be called again: what the file holds is then read, not assumed.
//
// Not safe for concurrent use.
type journal struct {
	path  string
	files files

	f     file // nil when closed.
	info  fs.FileInfo
	size  int64
	lines int

	aside     string      // The name of the last damaged file that was set aside,
	asideInfo fs.FileInfo // and what it was under its first name.
}

// peek reads what the file holds and changes nothing. A file that is not there is empty.
func (j *journal) peek() (scan, error) {
	st, err := os.Stat(j.path)
	if errors.Is(err, fs.ErrNotExist) {
		return scan{}, nil
	}
	if err != nil {
		return scan{}, err
	}
	if !st.Mode().IsRegular() {
		return scan{}, fmt.Errorf("%q: is a %s, want a regular file", j.path, kindOf(st))
	}
	f, err := j.files.open(j.path, os.O_RDONLY, 0)
	if err != nil {
		return scan{}, err
	}
	defer f.Close()
	return readScan(io.NewSectionReader(f, 0, st.Size()))
}

// load opens the file, creating it if need be, cuts off what an unfinished append left, and returns what it holds, all
// of it synced. aside is the new name of what stood in the way of a file. When the scan found damage the journal stays
// closed: it is for the caller to set the file aside and to rewrite it.
func (j *journal) load(now time.Time) (found scan, aside string, err error) {
	j.close()
	if st, err := os.Lstat(j.path); err == nil && !st.Mode().IsRegular() && st.Mode()&fs.ModeSymlink == 0 {
		if aside, err = fsys.MoveAside(j.path, now, j.files.rename); err != nil {
			return scan{}, "", fmt.Errorf("setting damaged file aside: %w", err)
		}
	}
	f, err := j.files.open(j.path, os.O_RDWR|os.O_CREATE, filePerm)
	if err != nil {
		return scan{}, aside, err
	}
	if found, err = j.repair(f); err != nil || found.damaged {
		f.Close()
		return found, aside, err
	}
	if err = j.adopt(f); err != nil {
		f.Close()
		return found, aside, err
	}
	j.lines = len(found.lines) + found.blanks
	return found, aside, nil
}

// repair reads f and makes it end with a whole line, unless it is damaged.
func (j *journal) repair(f file) (scan, error) {
	st, err := f.Stat()
	if err != nil {
		return scan{}, err
	}
	found, err := readScan(io.NewSectionReader(f, 0, st.Size()))
	if err != nil || found.damaged {
		return found, err
	}
	if found.torn {
		if err := f.Truncate(found.good); err != nil {
			return found, err
		}
	}
	if !found.ended {
		if _, err := f.WriteAt([]byte{'\n'}, found.good); err != nil {
			return found, err
		}
	}
	// Lines that a killed process wrote may not be on the disk yet.
	if err := f.Sync(); err != nil {
		return found, err
	}
	return found, j.files.sync(filepath.Dir(j.path))
}

// adopt makes f the open file of the journal.
func (j *journal) adopt(f file) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	j.f, j.info, j.size = f, info, info.Size()
	return nil
}

// changed tells whether somebody else moved, removed, cut or wrote to the file since the journal last did.
func (j *journal) changed() bool {
	st, err := os.Stat(j.path)
	return err != nil || !os.SameFile(st, j.info) || st.Size() != j.size
}

// append writes lines behind the last one and syncs them. On an error none of them counts: what was written of them is
// cut off again, here or by the next load.
func (j *journal) append(lines [][]byte) error {
	var text []byte
	for _, line := range lines {
		text = append(text, line...)
	}
	_, err := j.f.WriteAt(text, j.size)
	if err == nil {
		err = j.f.Sync()
	}
	if err != nil {
		j.f.Truncate(j.size)
		j.close()
		return err
	}
	j.size += int64(len(text))
	j.lines += len(lines)
	return nil
}

// rewrite replaces the file by one with the given lines. When it returns an error and the journal is still open, the
// file is the old one and of use.
func (j *journal) rewrite(lines [][]byte) error {
	temp := j.path + ".tmp"
	if err := j.writeNew(temp, lines); err != nil {
		os.Remove(temp)
		return err
	}
	// Some systems do not rename open files, or over them.
	j.close()
	if err := j.files.rename(temp, j.path); err != nil {
		os.Remove(temp)
		return err
	}
	if err := j.files.sync(filepath.Dir(j.path)); err != nil {
		return err
	}
	f, err := j.files.open(j.path, os.O_RDWR, filePerm)
	if err != nil {
		return err
	}
	if err := j.adopt(f); err != nil {
		f.Close()
		return err
	}
	j.lines = len(lines)
	return nil
}

func (j *journal) writeNew(name string, lines [][]byte) error {
	// What a compaction left that was killed, or anything else in the way.
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := j.files.open(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, filePerm)
	if err != nil {
		return err
	}
	defer f.Close()
	out := bufio.NewWriterSize(io.NewOffsetWriter(f, 0), 256<<10)
	for _, line := range lines {
		if _, err := out.Write(line); err != nil {
			return err
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return f.Sync()
}

// close closes the file, if it is open.
func (j *journal) close() {
	if j.f != nil {
		j.f.Close()
		j.f = nil
	}
}
