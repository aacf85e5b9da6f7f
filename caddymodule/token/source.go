package token

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"time"
)

const (
	fetchTimeout = 10 * time.Second
	maxBody      = 1 << 20
	fileEvery    = 2 * time.Second
)

// source is where a JWKS comes from. Not safe for concurrent use.
type source interface {
	// load returns the set, or false when it is what was accepted last. Its errors hold no URL.
	load(ctx context.Context) (body []byte, changed bool, err error)
	// accepted says that what load returned last was good.
	accepted()
}

type urlSource struct {
	address string
	client  *http.Client
}

func newURLSource(address string, client *http.Client) *urlSource {
	if client == nil {
		client = &http.Client{CheckRedirect: checkRedirect}
	}
	return &urlSource{address: address, client: client}
}

func checkRedirect(request *http.Request, via []*http.Request) error {
	if request.URL.Scheme != "https" && via[len(via)-1].URL.Scheme == "https" {
		return errors.New("redirected from https to http")
	}
	if len(via) >= 5 {
		return errors.New("redirected more than 5 times")
	}
	return nil
}

func (s *urlSource) load(ctx context.Context) ([]byte, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.address, nil)
	if err != nil {
		return nil, false, errors.New("jwt: jwks: not a URL, want https://HOST/PATH")
	}
	request.Header.Set("Accept", "application/jwk-set+json, application/json")
	response, err := s.client.Do(request)
	if err != nil {
		var outer *url.Error
		if errors.As(err, &outer) {
			err = outer.Err // without the address, whose query may be a secret
		}
		return nil, false, fmt.Errorf("jwt: jwks: fetching: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, false, fmt.Errorf("jwt: jwks: answer has status %d, want 200", response.StatusCode)
	}
	body, err := readSet(response.Body)
	return body, true, err
}

func (s *urlSource) accepted() {}

type fileSource struct {
	path       string
	seen, good fs.FileInfo
}

func (s *fileSource) load(context.Context) ([]byte, bool, error) {
	info, err := os.Stat(s.path)
	if err != nil {
		return nil, false, fmt.Errorf("jwt: jwks: %w", err)
	}
	if s.good != nil && os.SameFile(info, s.good) && info.Size() == s.good.Size() && info.ModTime().Equal(s.good.ModTime()) {
		return nil, false, nil
	}
	if !info.Mode().IsRegular() {
		return nil, false, errors.New("jwt: jwks: not a regular file")
	}
	file, err := os.Open(s.path)
	if err != nil {
		return nil, false, fmt.Errorf("jwt: jwks: %w", err)
	}
	defer file.Close()
	s.seen = info
	body, err := readSet(file)
	return body, true, err
}

func (s *fileSource) accepted() { s.good = s.seen }

func readSet(r io.Reader) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("jwt: jwks: reading: %w", err)
	}
	if len(body) > maxBody {
		return nil, fmt.Errorf("jwt: jwks: more than %d bytes, want a key set", maxBody)
	}
	return body, nil
}
