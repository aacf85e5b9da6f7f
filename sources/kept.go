package sources

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/internal/fsys"
)

// Kept is the last good copy of a source on disk, for a start while the source is down: one file with a document and
// what belongs to it, which is replaced as a whole. Any number of processes may use the same one: the last Save wins, and
// Load finds the copy of one of them. Its methods are safe for concurrent use.
//
// A copy that is not as it was saved is set aside as PATH.damaged-TIME, where nobody touches it again.
type Kept struct {
	// Path is where the copy is; see KeptPath. Its directory is made if need be, for the owner only.
	Path string
	// MaxSize is the largest size of the document in bytes. 0 or less: DefaultMaxSize.
	MaxSize int64

	step func(keptStep) error // For tests; nil: nothing. An error takes the place of the step.
}

// keptStep is one of the calls by which a copy is changed on disk: those of Save in their order, and that of a damaged
// one.
type keptStep int

const (
	keptCreate keptStep = iota
	keptWrite
	keptSync
	keptRename
	keptSyncDir
	keptAside
)

const (
	keptPerm    = 0o600
	keptDirPerm = 0o700
	// keptTries is how often a Save begins anew whose temporary file is gone. See removeLeftovers.
	keptTries = 5
)

// KeptPath is the file in dir for the copy of a source, by its name with everything that tells it apart, such as a whole
// URL. The name cannot be read from it.
func KeptPath(dir, name string) string {
	sum := sha256.Sum256([]byte(name))
	return filepath.Join(dir, fmt.Sprintf("definitions-%x.kept", sum[:16]))
}

// Save makes the copy one of doc, unless it is already. When it returns nil, the copy outlasts a crash of the machine;
// when it returns an error, there may be the earlier copy or the new one, whole. It is an error when doc is larger than
// MaxSize, or when its Revision is not that of its Body, as of one that came with an error.
func (k *Kept) Save(doc Document) error {
	if err := k.save(doc); err != nil {
		return fmt.Errorf("keeping a copy in %q: %w", k.Path, bareKept(err))
	}
	return nil
}

// Load returns the copy, with the name, revision and time that were saved. The error is fs.ErrNotExist when there is
// none, and another one when it is damaged, is no regular file, or is larger than MaxSize.
func (k *Kept) Load() (Document, error) {
	doc, _, err := k.load()
	if err != nil {
		return Document{}, fmt.Errorf("reading the copy %q: %w", k.Path, bareKept(err))
	}
	return doc, nil
}

// Exists tells whether there is a copy, sound or not, as far as can be seen.
func (k *Kept) Exists() bool {
	_, err := os.Stat(k.Path)
	return !errors.Is(err, fs.ErrNotExist)
}

func (k *Kept) save(doc Document) error {
	if n := int64(len(doc.Body)); n > k.maxSize() {
		return fmt.Errorf("the document is %d bytes long, want at most %d", n, k.maxSize())
	}
	if doc.Revision != newDocument("", doc.Body, time.Time{}).Revision {
		return errors.New("the document's revision is not that of its body, want a document as a source gave it")
	}
	head, err := encodeKeptHead(doc)
	if err != nil {
		return err
	}
	dir := filepath.Dir(k.Path)
	if _, err := os.Stat(dir); err != nil {
		if err := os.MkdirAll(dir, keptDirPerm); err != nil {
			return err
		}
		// The parent may be nobody's business but to pass through.
		_ = fsys.SyncDir(filepath.Dir(dir))
	}
	old, stuck, err := k.load()
	if stuck {
		return err // Or the damaged copy would be gone.
	}
	if err != nil || old.Revision != doc.Revision {
		for try := 1; ; try++ {
			err := k.replace(head, doc.Body)
			if err == nil {
				break
			}
			if !errors.Is(err, fs.ErrNotExist) || try == keptTries {
				return err
			}
		}
	}
	// Of a copy that is there already too: who put it there was perhaps killed before this.
	return k.do(keptSyncDir, func() error { return fsys.SyncDir(dir) })
}

// load removes leftovers, reads the copy and sets it aside when it is damaged. stuck tells that a damaged one could not
// be.
func (k *Kept) load() (doc Document, stuck bool, err error) {
	k.removeLeftovers()
	for try := 1; ; try++ {
		doc, damaged, err := k.read()
		if damaged == nil {
			return doc, false, err
		}
		aside, asideErr := k.setAside(damaged, time.Now())
		switch {
		case aside != "":
			return Document{}, false, fmt.Errorf("is damaged: %w; set aside as %q", err, aside)
		case asideErr != nil:
			return Document{}, true, fmt.Errorf("is damaged: %w; setting it aside: %w", err, bareKept(asideErr))
		case try == keptTries:
			return Document{}, true, fmt.Errorf("is damaged: %w", err)
		}
		// Somebody else set it aside or replaced it.
	}
}

// read reads the copy. Of one that is damaged, damaged is the file as it was opened.
func (k *Kept) read() (doc Document, damaged fs.FileInfo, err error) {
	f, err := os.OpenFile(k.Path, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return Document{}, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Document{}, nil, err
	}
	if err := check(info, math.MaxInt64); err != nil {
		return Document{}, nil, err
	}
	limit := k.maxSize() + maxKeptHead
	tooLarge := fmt.Errorf("is larger than %d bytes", k.maxSize())
	if info.Size() > limit {
		return Document{}, nil, tooLarge
	}
	var text bytes.Buffer
	text.Grow(int(info.Size()) + bytes.MinRead) // Else it would grow by doubling.
	if _, err := text.ReadFrom(io.LimitReader(f, limit)); err != nil {
		return Document{}, nil, err
	}
	doc, err = decodeKept(text.Bytes())
	if err != nil {
		return Document{}, info, err
	}
	if int64(len(doc.Body)) > k.maxSize() {
		return Document{}, nil, tooLarge
	}
	return doc, nil, nil
}

func (k *Kept) maxSize() int64 {
	if k.MaxSize <= 0 {
		return DefaultMaxSize
	}
	return k.MaxSize
}

// do does one step.
func (k *Kept) do(s keptStep, step func() error) error {
	if k.step != nil {
		if err := k.step(s); err != nil {
			return err
		}
	}
	return step()
}

// bareKept takes operation and paths off an error, which the caller puts before it in house style.
func bareKept(err error) error {
	if at, ok := err.(*os.LinkError); ok {
		return at.Err
	}
	if at, ok := err.(*fs.PathError); ok {
		return at.Err
	}
	return err
}
