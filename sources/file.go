package sources

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	// DefaultPoll is how often a [File] is looked at, MinPoll how often at most.
	DefaultPoll = 2 * time.Second
	MinPoll     = 100 * time.Millisecond
	// DefaultMaxSize is the size in bytes above which a [File] is refused.
	DefaultMaxSize = 16 << 20
)

// File is a source on disk, looked at again and again: unlike notifications of the system this notices files that are
// renamed over, targets of symbolic links, and mounted Kubernetes ConfigMaps.
//
// A file is read once it has been left alone for 45 ms, so that what another program is in the middle of writing is not
// taken for a version; one that is never left alone is read after 1 s. A change is told at most Poll and 80 ms after the
// write. The stat call is cheap; the file is read again only when its size, times or identity differ, or when it was
// written to within 3 s of the last reading, when they could be equal by chance.
//
// It is an error when the file is missing, cannot be read, is no regular file (after symbolic links), or is larger than
// MaxSize. An empty file is none. Not to be copied after first use. A file system that does not answer holds Load and
// Watch up, whatever their context says.
type File struct {
	// Path is where the file is; relative to the working directory. Document.Name and Name are the same text.
	Path string
	// Poll is the time between two looks. 0 or less: DefaultPoll. Below MinPoll: MinPoll.
	Poll time.Duration
	// MaxSize is the largest size in bytes. 0 or less: DefaultMaxSize.
	MaxSize int64

	mu      sync.Mutex
	stamp   stamp     // Of the last reading that went well;
	readAt  time.Time // when that was,
	told    string    // and the revision of what was last handed out.
	failure string    // The text of the error handed out since then; empty for none.
}

var _ Source = (*File)(nil)

// Name is the path.
func (f *File) Name() string {
	return f.Path
}

// Load reads the file.
func (f *File) Load(ctx context.Context) (Document, error) {
	doc, _, err := f.read(ctx)
	return doc, err
}

// Watch looks at the file at once, and then each Poll, until ctx is done.
func (f *File) Watch(ctx context.Context, changed func(Document, error)) {
	poll := f.Poll
	switch {
	case poll <= 0:
		poll = DefaultPoll
	case poll < MinPoll:
		poll = MinPoll
	}
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		if !f.asBefore() {
			doc, news, err := f.read(ctx)
			if ctx.Err() != nil {
				return
			}
			if news {
				changed(doc, err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// asBefore tells, without reading it, whether the file is certainly as it was handed out.
func (f *File) asBefore() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.stamp.known() || f.failure != "" || f.stamp.racy(f.readAt) {
		return false
	}
	now, err := stat(f.Path)
	return err == nil && now.same(f.stamp)
}

// read reads the file and returns whether that is anything else than what was handed out before.
func (f *File) read(ctx context.Context) (doc Document, news bool, err error) {
	limit := f.MaxSize
	if limit <= 0 {
		limit = DefaultMaxSize
	}
	f.mu.Lock()
	known := f.stamp
	f.mu.Unlock()
	r, err := readWhole(ctx, f.Path, known, limit)
	if err != nil {
		err = fmt.Errorf("file %q: %w", f.Path, err)
		if ctx.Err() != nil {
			return Document{Name: f.Path}, false, err
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		news = f.failure != err.Error()
		f.failure = err.Error()
		return Document{Name: f.Path}, news, err
	}
	doc = newDocument(f.Path, r.body, r.at)
	f.mu.Lock()
	defer f.mu.Unlock()
	news = f.failure != "" || f.told != doc.Revision
	f.stamp, f.readAt, f.told, f.failure = r.stamp, r.at, doc.Revision, ""
	return doc, news, nil
}
