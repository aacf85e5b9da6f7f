package caddymodule

import (
	"io"
	"net/http"
	"sync"
	"time"
)

// replayBody lets a second handler read a request's body that a first one has
// read some of. What is read is remembered up to a limit; a body that is larger
// streams on and cannot be replayed.
//
// A transport may go on reading after its handler has returned: what it takes
// from then on is not lost to the second reader.
type replayBody struct {
	body  io.Reader
	limit int

	mu      sync.Mutex
	read    sync.Cond // when a reading of body is over
	reading bool
	kept    []byte
	gone    bool      // what was read is not kept
	err     error     // what reading body ended with
	last    time.Time // when something was read last, or there was nothing more
	current *replayReader
}

func newReplayBody(body io.Reader, limit int) *replayBody {
	b := &replayBody{body: body, limit: limit}
	b.read.L = &b.mu
	return b
}

// reader returns a reader of the body from its beginning. It closes the one before;
// nil tells that the body cannot be replayed.
func (b *replayBody) reader() io.ReadCloser {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gone {
		return nil
	}
	if b.current != nil {
		b.current.close()
	}
	b.current = &replayReader{b: b}
	return b.current
}

// complete tells whether all that was read is kept.
func (b *replayBody) complete() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.gone
}

// broken tells whether the body has ended in the middle.
func (b *replayBody) broken() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err != nil && b.err != io.EOF
}

// progress tells whether somebody waits for more of the body, and when more of it, or
// its end, has come last.
func (b *replayBody) progress() (waiting bool, last time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reading, b.last
}

type replayReader struct {
	b      *replayBody
	off    int // in kept
	closed bool
}

// Read is part of io.Reader.
func (r *replayReader) Read(p []byte) (int, error) {
	b := r.b
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		switch {
		case r.closed:
			return 0, http.ErrBodyReadAfterClose
		case r.off < len(b.kept):
			n := copy(p, b.kept[r.off:])
			r.off += n
			return n, nil
		case b.err != nil:
			return 0, b.err
		case len(p) == 0:
			return 0, nil
		case !b.reading:
			return r.more(p)
		}
		b.read.Wait()
	}
}

// more reads on from the body. The caller must hold mu.
func (r *replayReader) more(p []byte) (int, error) {
	b := r.b
	b.reading = true
	b.mu.Unlock()
	n, err := b.body.Read(p)
	b.mu.Lock()
	b.reading, b.last = false, time.Now()
	b.read.Broadcast()
	if err != nil {
		b.err = err
	}
	if !b.gone {
		// What is too much is kept all the same where its reader has left: it is
		// the next one's.
		if len(b.kept)+n <= b.limit || r.closed {
			b.kept = append(b.kept, p[:n]...)
			r.off += n
		} else {
			b.gone, b.kept, r.off = true, nil, 0
		}
	}
	if r.closed {
		return 0, http.ErrBodyReadAfterClose
	}
	return n, err
}

// Close ends this reader, not the body: that is net/http's to close.
func (r *replayReader) Close() error {
	r.b.mu.Lock()
	defer r.b.mu.Unlock()
	r.close()
	return nil
}

func (r *replayReader) close() {
	r.closed = true
	r.b.read.Broadcast()
}

// hasBody tells whether a request has a body, as far as its head says.
func hasBody(r *http.Request) bool {
	return r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0
}
