package caddymodule

import (
	"bytes"
	"crypto/sha256"
	"html/template"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"
)

// shown is what every page shows.
type shown struct {
	Base     string
	Page     string
	Title    string
	Token    string // of forms
	Own      string // the flag whose page it is
	Back     string // the flag that a problem is of
	Degraded []string
	Tripped  []string // other flags
	Now      time.Time
	Content  any
}

// shownOn is what a page shows, which is of flag own or of none.
func (c *Console) shownOn(r *http.Request, own string) shown {
	now := time.Now()
	s := shown{Base: baseOf(r), Token: c.formToken(now), Own: own, Degraded: c.app.degraded(), Now: now}
	rs := c.app.rules.Load()
	for i, name := range rs.names {
		if name != own && rs.State(i).Tripped != "" {
			s.Tripped = append(s.Tripped, name)
		}
	}
	if s.Base == "" {
		s.Base = c.base(r)
	}
	return s
}

// show writes a page.
func (c *Console) show(w http.ResponseWriter, r *http.Request, status int, page, title string, content any) error {
	own := ""
	if p, ok := content.(flagPage); ok {
		own = p.Name
	}
	s := c.shownOn(r, own)
	if name := r.PathValue("name"); own == "" && c.app.rules.Load().Index(name) >= 0 {
		s.Back = name
	}
	s.Page, s.Title, s.Content = page, title, content
	return c.write(w, r, status, c.pages[page], "layout.html", s)
}

// serveBanners gives pages what stands at the head of all of them.
func (c *Console) serveBanners(w http.ResponseWriter, r *http.Request) error {
	return c.write(w, r, http.StatusOK, c.pages["problem"], "banners", c.shownOn(r, r.URL.Query().Get("flag")))
}

// write answers with a template. A page that asks again for what it has already gets
// nothing; once an hour it gets all the same, for the sake of its forms' token.
func (c *Console) write(w http.ResponseWriter, r *http.Request, status int, page *template.Template, name string, s shown) error {
	var b bytes.Buffer
	if err := page.ExecuteTemplate(&b, name, s); err != nil {
		c.log.Error("a page of the console cannot be shown", zap.String("page", name), zap.String("title", s.Title), zap.Error(err))
		http.Error(w, "This page cannot be shown; the server's log says why.", http.StatusInternalServerError)
		return nil
	}
	if status == http.StatusOK && r.Method == http.MethodGet {
		text := b.Bytes()
		if s.Token != "" {
			text = bytes.ReplaceAll(text, []byte(s.Token), strconv.AppendInt(nil, s.Now.Unix()/3600, 10))
		}
		tag := tagOf(sha256.Sum256(text))
		w.Header().Set("ETag", tag)
		if matchesETag(r.Header["If-None-Match"], tag) {
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // it fails when the client has gone
	return nil
}

// problem shows what is wrong.
func (c *Console) problem(w http.ResponseWriter, r *http.Request, status int, words string) error {
	return c.show(w, r, status, "problem", http.StatusText(status), words)
}
