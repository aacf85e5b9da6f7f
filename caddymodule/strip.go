package caddymodule

import (
	"io"
	"net/http"
	"strings"
)

// owner knows header names that are ours to set, which clients must not.
type owner interface{ owns(name string) bool }

// stripOwned removes headers of ours that the client sent, also those it
// announced as trailers, and their names from Connection: reverse_proxy would
// remove what we set where the client names it.
func stripOwned(r *http.Request, o owner) {
	deleteOwned(r.Header, o)
	if len(r.Trailer) > 0 && r.Body != nil {
		deleteOwned(r.Trailer, o)
		r.Body = &trailerBody{ReadCloser: r.Body, owner: o, trailer: r.Trailer}
	}
	if lines, ok := r.Header["Connection"]; ok {
		stripConnection(r.Header, lines, o)
	}
}

func deleteOwned(header http.Header, o owner) {
	for name := range header {
		if o.owns(name) {
			delete(header, name)
		}
	}
}

func stripConnection(header http.Header, lines []string, o owner) {
	var kept []string
	changed := false
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ",") {
			part = strings.TrimSpace(part)
			if o.owns(part) {
				changed = true
			} else if part != "" {
				kept = append(kept, part)
			}
		}
	}
	switch {
	case !changed:
	case len(kept) == 0:
		header.Del("Connection")
	default:
		header["Connection"] = []string{strings.Join(kept, ", ")}
	}
}

// trailerBody strips trailers when they have arrived, before reverse_proxy copies
// them: their values come behind the body, and with them trailers that were not
// announced; some servers take them all for headers.
type trailerBody struct {
	io.ReadCloser
	owner   owner
	trailer http.Header // of the request, which net/http fills at the body's end
}

// Read is part of io.Reader.
func (b *trailerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		deleteOwned(b.trailer, b.owner)
	}
	return n, err
}

// equalHeader compares header names as CGI and many frameworks do: without
// regard to case, and with `_` and `.` like `-`.
func equalHeader(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if fold(a[i]) != fold(b[i]) {
			return false
		}
	}
	return true
}

func fold(c byte) byte {
	switch {
	case c == '_', c == '.':
		return '-'
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	}
	return c
}
