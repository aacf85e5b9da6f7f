package caddymodule

import (
	"io"
	"net/http"
)

// stripTrailer removes headers of ours from the trailers that a client has
// announced. Their values come behind the body, and with them trailers that were
// not announced; some servers take them all for headers.
func (h *Handler) stripTrailer(r *http.Request) {
	if len(r.Trailer) == 0 || r.Body == nil {
		return
	}
	h.deleteOwned(r.Trailer)
	r.Body = &trailerBody{ReadCloser: r.Body, handler: h, trailer: r.Trailer}
}

func (h *Handler) deleteOwned(header http.Header) {
	for name := range header {
		if h.owns(name) {
			delete(header, name)
		}
	}
}

// trailerBody strips trailers when they have arrived, before reverse_proxy
// copies them.
type trailerBody struct {
	io.ReadCloser
	handler *Handler
	trailer http.Header // of the request, which net/http fills at the body's end
}

// Read is part of io.Reader.
func (b *trailerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.handler.deleteOwned(b.trailer)
	}
	return n, err
}
