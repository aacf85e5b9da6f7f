package sources

import (
	"net/http"
	"time"
)

const (
	// dateAge is how old a Last-Modified must have been when told: it counts whole seconds, and a second version within
	// the same one has the same date. See RFC 9110, 8.8.2.2, and racyAge.
	dateAge = 2 * time.Second
	// dateTrust is how many questions by a date alone are asked before one without. The date of a file that was put back
	// from a backup is older than the one asked with, which most servers answer with 304.
	dateTrust = 19
)

// version is a document and what its server calls it. The zero value is none.
type version struct {
	doc      Document
	url      string // Which answered, after redirects: another one's validators mean something else.
	etag     string // As told, weak or not: whole bodies compare by either.
	modified string // As told, or empty where it proves nothing.
	asked    int    // Questions since the last 200, with the one under way.
}

// versionOf returns what an answer of 200 calls its body.
func versionOf(url string, header http.Header) version {
	v := version{url: url, etag: header.Get("ETag")}
	modified, err := http.ParseTime(header.Get("Last-Modified"))
	if err != nil {
		return v
	}
	// By the server's clock for both.
	if sent, err := http.ParseTime(header.Get("Date")); err == nil && sent.Sub(modified) >= dateAge {
		v.modified = header.Get("Last-Modified")
	}
	return v
}

// condition adds to the header of a request to url that only another version than v is wanted, and returns whether it
// did.
func (v version) condition(url string, header http.Header) bool {
	if v.url != url || (v.etag == "" && (v.modified == "" || v.asked%(dateTrust+1) == 0)) {
		return false
	}
	if v.etag != "" {
		header.Set("If-None-Match", v.etag)
	}
	if v.modified != "" {
		header.Set("If-Modified-Since", v.modified)
	}
	return true
}
