// Package sources says where flag definitions come from. A [Source] yields documents, text that it does not look into:
// decoding and checking are the evaluator's. It knows no Caddy.
package sources

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// Document is one version of a source's text.
type Document struct {
	// Name is for error texts, such as features.json in features.json:14:9.
	Name string
	// Body is the text. It may be empty. It belongs to whoever got the Document.
	Body []byte
	// Revision is the same for two documents of a source exactly when their bodies are: the SHA-256 of Body in
	// hexadecimal digits. Empty in a Document that comes with an error.
	Revision string
	// ReadAt is when the reading of Body ended.
	ReadAt time.Time
}

// Source is where definitions come from. Its methods are safe for concurrent use, but for two calls of Watch at a time.
type Source interface {
	// Name tells sources apart in logs and errors: a path, an address without its secrets.
	Name() string

	// Load reads the present version. The error names the source. Load waits for ctx at most, where the system lets it.
	Load(ctx context.Context) (Document, error)

	// Watch calls changed, from its own goroutine and one call at a time, with each version that is not the one that
	// Load or changed had last, so that none is missed between a Load and a Watch; without a Load before, with the
	// present one too. An error is told once, not at each attempt, until there is another one or none; the end of an
	// error is told with the Document, even when that is the same as before. With an error the Document has its Name
	// only. Versions that follow closely on each other may be left out, never the last one. Watch returns when ctx is
	// done.
	Watch(ctx context.Context, changed func(Document, error))
}

// newDocument returns the document of a text read at now.
func newDocument(name string, body []byte, now time.Time) Document {
	sum := sha256.Sum256(body)
	return Document{Name: name, Body: body, Revision: hex.EncodeToString(sum[:]), ReadAt: now}
}
