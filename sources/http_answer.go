package sources

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	// maxHint is how many bytes of what a server says beside its status are told, readHint how many are read for it.
	maxHint  = 200
	readHint = 4 << 10
	// hintTime is how long they are waited for.
	hintTime = time.Second
)

// exchange is what one fetch needs to know to judge what comes.
type exchange struct {
	ctx     context.Context // Done after timeout.
	cancel  context.CancelFunc
	timeout time.Duration
	hidden  secrets
	maxSize int64
}

// do sends one request and returns what it brought, or where it is redirected to.
func (e *exchange) do(transport http.RoundTripper, r *http.Request, conditional bool) (answer, *url.URL, *fault) {
	resp, err := transport.RoundTrip(r)
	if err != nil {
		if e.ctx.Err() != nil {
			return answer{}, nil, newFault(fmt.Sprintf("did not answer within %v", e.timeout))
		}
		return answer{}, nil, foreign(err, e.hidden)
	}
	defer resp.Body.Close()
	if next, f := redirect(resp, r.URL); next != nil || f != nil {
		return answer{}, next, f
	}
	switch {
	case resp.StatusCode == http.StatusNotModified && conditional:
		return answer{unchanged: true}, nil, nil
	case resp.StatusCode == http.StatusNotModified:
		return answer{}, nil, newFault("answered 304 Not Modified, though nothing was said of an earlier version, want 200")
	case resp.StatusCode != http.StatusOK:
		return answer{}, nil, e.refused(resp)
	}
	body, f := e.read(resp)
	if f != nil {
		return answer{}, nil, f
	}
	return answer{version: versionOf("", resp.Header), body: body}, nil, nil
}

// refused is the fault of a status that is no answer.
func (e *exchange) refused(resp *http.Response) *fault {
	// Not resp.Status: its words are the server's.
	f := newFault(strings.TrimSpace(fmt.Sprintf("answered %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))))
	if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable {
		f.after = retryAfter(resp.Header, time.Now())
	}
	// Not in the kind: it may hold the number of the request.
	if hint := e.hint(resp); hint != "" {
		f.text += fmt.Sprintf(", saying %q", hint)
	}
	return f
}

// hint is the beginning of what the server says, where that is text.
func (e *exchange) hint(resp *http.Response) string {
	kind := mediaType(resp.Header)
	if kind != "text/plain" && kind != "application/json" && !strings.HasSuffix(kind, "+json") {
		return ""
	}
	defer time.AfterFunc(hintTime, e.cancel).Stop() // What is there by then counts.
	text, err := io.ReadAll(io.LimitReader(resp.Body, readHint))
	return e.hidden.hide(string(text), err != nil || len(text) == readHint, maxHint)
}

// read returns the whole body of a 200.
func (e *exchange) read(resp *http.Response) ([]byte, *fault) {
	tooLarge := newFault(fmt.Sprintf("is larger than %d bytes", e.maxSize))
	encoding := resp.Header.Get("Content-Encoding")
	switch kind := mediaType(resp.Header); {
	case kind == "text/html", kind == "application/xhtml+xml":
		return nil, newFault(fmt.Sprintf("answered with a page (%s), want JSON or YAML", kind))
	case encoding != "" && !strings.EqualFold(encoding, "identity"): // The transport takes off gzip.
		return nil, newFault(fmt.Sprintf("answered in the encoding %q, want gzip or none", e.hidden.hide(encoding, false, 20)))
	case resp.ContentLength > e.maxSize:
		return nil, tooLarge
	}
	// Not over TLS either: crypto/tls takes an end without close_notify for one.
	endless := resp.ContentLength < 0 && len(resp.TransferEncoding) == 0 && resp.ProtoMajor == 1 && !resp.Uncompressed
	var body bytes.Buffer
	n, err := body.ReadFrom(io.LimitReader(resp.Body, e.maxSize+1))
	switch {
	case err != nil && e.ctx.Err() != nil:
		return nil, newFault(fmt.Sprintf("did not send the whole body within %v", e.timeout))
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, newFault("the body is cut off")
	case err != nil:
		f := foreign(err, e.hidden)
		f.text, f.kind = "reading the body: "+f.text, "reading the body: "+f.kind
		return nil, f
	case n > e.maxSize:
		return nil, tooLarge
	case len(bytes.TrimSpace(body.Bytes())) == 0:
		return nil, newFault("answered with an empty body, want JSON or YAML")
	case endless && bytes.TrimSpace(body.Bytes())[0] != '{': // JSON that is cut off is none; YAML may well be
		return nil, newFault("answered without saying where the body ends, want a Content-Length or chunks")
	}
	return bytes.Clone(body.Bytes()), nil // Without the room that it grew by.
}

// mediaType is the content type without its parameters, in lower case; whatever is wrong with those.
func mediaType(header http.Header) string {
	kind, _, _ := strings.Cut(header.Get("Content-Type"), ";")
	return strings.ToLower(strings.TrimSpace(kind))
}
