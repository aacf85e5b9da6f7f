package caddymodule

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
	"github.com/seed-6adbc061/caddy-feature-flags/sources"
)

// Source is a source of definitions. Placeholders in its texts are resolved when
// the config is loaded.
type Source struct {
	// Type is file or http.
	Type string `json:"type"`

	// Path of a file.
	Path string `json:"path,omitempty"`

	// URL that definitions are fetched from, http or https.
	URL string `json:"url,omitempty"`

	// Poll is how often it is looked at. Default: 2s, of a file at least 100ms; of
	// a URL 30s, at least 1s.
	Poll caddy.Duration `json:"poll,omitempty"`

	// Header is sent to the URL's own origin.
	Header http.Header `json:"header,omitempty"`

	// Timeout of one fetch. Default: 10s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// MaxSize in bytes of what is fetched. Default: 16 MiB.
	MaxSize int64 `json:"max_size,omitempty"`

	// Optional has Caddy start without any flags of the URL where it does not answer
	// and there is no copy of what it said last.
	Optional bool `json:"optional,omitempty"`
}

// liveSource is a source with what it last said.
type liveSource struct {
	sources.Source
	poll    time.Duration
	inForce version
	wanted  version // the last that could be read; not in force where it has mistakes or does not fit the others
	err     error   // why what it says now is not wanted

	remote   string        // all that a remote one is asked with, secrets too; "" a local one
	kept     *sources.Kept // its last good copy on disk; nil: there is no disk
	optional bool
	saved    string                // revision of what is there
	unsaved  atomic.Pointer[error] // why that is not what is in force; nil: it is
}

// version is what a source said. The zero version is nothing yet.
type version struct {
	text sources.Document
	doc  *evaluator.Document
}

type reloadFailure struct {
	since time.Time
	err   error
}

// slowestPoll is after what time an instance as this one has read a change of its
// sources, if they answer.
func (a *App) slowestPoll() time.Duration {
	var slowest time.Duration
	for _, s := range a.sources {
		slowest = max(slowest, s.poll)
	}
	return slowest*6/5 + time.Second
}

// open makes the source ready.
func (s *Source) open(repl *caddy.Replacer, dir string) (*liveSource, error) {
	switch s.Type {
	case "file":
		path, err := repl.ReplaceOrErr(s.Path, true, true)
		if err != nil || path == "" {
			return nil, fmt.Errorf("path: %q: want a file: %w", s.Path, cmp.Or(err, errors.New("empty")))
		}
		// A little more often than asked: a change is to be in force, not only
		// seen, within the interval and a tenth of a second.
		poll := cmp.Or(time.Duration(s.Poll), sources.DefaultPoll)
		return &liveSource{Source: &sources.File{Path: path, Poll: max(poll*9/10, sources.MinPoll)}, poll: poll}, nil
	case "http":
		address, err := resolved(repl, "url", s.URL)
		if err != nil {
			return nil, err
		}
		header := http.Header{}
		for name, values := range s.Header {
			for _, v := range values {
				if v, err = resolved(repl, "header "+name, v); err != nil {
					return nil, err
				}
				header.Add(name, v)
			}
		}
		src := &sources.HTTP{URL: address, Poll: time.Duration(s.Poll), Header: header, Timeout: time.Duration(s.Timeout), MaxSize: s.MaxSize}
		if err := src.Check(); err != nil {
			return nil, err
		}
		live := &liveSource{Source: src, poll: cmp.Or(time.Duration(s.Poll), sources.DefaultHTTPPoll), remote: identityOf(address, header), optional: s.Optional}
		if dir != "" {
			live.kept = &sources.Kept{Path: sources.KeptPath(filepath.Join(dir, "sources"), live.remote), MaxSize: s.MaxSize}
		}
		return live, nil
	}
	return nil, fmt.Errorf("want file or http, got %q", s.Type)
}

// identityOf tells remote sources apart: a header may choose what is answered, as the
// address does.
func identityOf(address string, header http.Header) string {
	var text bytes.Buffer
	text.WriteString(address)
	for _, name := range slices.Sorted(maps.Keys(header)) {
		for _, value := range header[name] {
			fmt.Fprintf(&text, "\n%s: %s", name, value)
		}
	}
	return text.String()
}

// openSources opens and reads all sources, all at once: one that does not answer takes
// its time.
func (a *App) openSources(repl *caddy.Replacer) error {
	var errs []error
	for i := range a.Sources {
		s, err := a.Sources[i].open(repl, a.dir)
		if err != nil {
			errs = append(errs, fmt.Errorf("sources[%d]: %w", i, err))
			continue
		}
		a.sources = append(a.sources, s)
	}
	var reading sync.WaitGroup
	for _, s := range a.sources {
		reading.Go(func() { s.take(s.Load(a.ctx)) })
	}
	reading.Wait()
	for _, s := range a.sources {
		if s.err == nil {
			continue
		}
		// What a remote source says now is no use; what it said last is.
		var err error
		if s.wanted, err = a.lastGood(s); err != nil {
			s.err = fmt.Errorf("%w\n%w", s.err, err)
		}
		if s.wanted.doc == nil && !s.optional {
			errs = append(errs, s.err)
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("feature flags:\n%w", errors.Join(errs...))
	}
	return nil
}

// take decodes a new version of a source's text. One that cannot be read at all
// leaves the last; the mistakes of one that can are told by compile, together with
// all others.
func (s *liveSource) take(text sources.Document, err error) {
	if s.err = err; err != nil {
		return
	}
	doc, _ := evaluator.Decode(text.Name, text.Body) // it keeps its mistakes
	s.wanted = version{text, doc}
}

// lastGood returns what a remote source said last that was in force, in this process
// or an earlier one. The error is for a copy that is there and cannot be read.
func (a *App) lastGood(s *liveSource) (version, error) {
	if s.remote == "" {
		return version{}, nil
	}
	text, known := a.engine.copyOf(s.remote)
	if !known {
		if s.kept == nil {
			return version{}, nil
		}
		var err error
		if text, err = s.kept.Load(); errors.Is(err, fs.ErrNotExist) {
			return version{}, nil
		} else if err != nil {
			return version{}, err
		}
	}
	doc, _ := evaluator.Decode(text.Name, text.Body)
	return version{text, doc}, nil
}

// firstProgram compiles what the sources say. Where that cannot be, remote ones
// speak by their last good copy: as few of them as will do. What they say now is
// tried again with each change.
func (a *App) firstProgram() (*evaluator.Program, error) {
	wanted := make([]version, len(a.sources))
	for i, s := range a.sources {
		wanted[i] = s.wanted
	}
	failing := a.sourceErrors()
	program, err := a.compileOf(wanted)
	if err != nil {
		failing = errors.Join(failing, err)
		if program = a.compileWithCopies(wanted); program == nil {
			return nil, err
		}
	}
	if failing != nil {
		a.failing.Store(&reloadFailure{time.Now(), failing})
	}
	return program, nil
}

// compileWithCopies has one remote source after the other speak by its last good
// copy, an optional one without a copy by nothing, and then all of them; nil where that
// does not help either.
func (a *App) compileWithCopies(wanted []version) *evaluator.Program {
	copies := slices.Clone(wanted)
	for i, s := range a.sources {
		good, err := a.lastGood(s)
		missing := err != nil || good.doc == nil
		if missing && s.optional && wanted[i].doc != nil && len(wanted[i].doc.Errors) > 0 {
			good, missing = version{}, false // as if it had said nothing
		}
		if missing || good.doc != nil && good.text.Revision == wanted[i].text.Revision {
			continue
		}
		copies[i] = good
		one := slices.Clone(wanted)
		one[i] = good
		if program, err := a.compileOf(one); err == nil {
			return program
		}
	}
	program, err := a.compileOf(copies)
	if err != nil {
		return nil
	}
	return program
}

// compile merges what the sources last said; or, of all but one, what is in
// force. On success it is what is in force.
func (a *App) compile(only *liveSource) (*evaluator.Program, error) {
	versions := make([]version, len(a.sources))
	for i, s := range a.sources {
		if versions[i] = s.inForce; only == nil || s == only {
			versions[i] = s.wanted
		}
	}
	return a.compileOf(versions)
}

// compileOf merges a version of each source. On success they are in force.
func (a *App) compileOf(versions []version) (*evaluator.Program, error) {
	docs := make([]*evaluator.Document, 0, len(versions))
	for _, v := range versions {
		docs = append(docs, v.doc) // nil: it has said nothing yet
	}
	program, err := evaluator.Compile(docs...)
	if err != nil {
		return nil, err
	}
	for i, s := range a.sources {
		s.inForce = versions[i]
	}
	return program, nil
}

// watchSources tells how the sources stand, and begins to watch them.
func (a *App) watchSources() {
	if f := a.failing.Load(); f != nil {
		a.report(news{Event: eventReloadFailed, At: f.since, Reason: f.err.Error()})
	}
	a.tellShadowed()
	for _, s := range a.sources {
		a.watching.Go(func() {
			a.keepCopy(s)
			s.Watch(a.running, func(text sources.Document, err error) { a.changed(s, text, err) })
		})
		if s.kept != nil {
			a.watching.Go(func() { a.keepTrying(s) })
		}
	}
}

// copiesTried is how often it is seen to that what is in force of a remote source is
// on disk.
const copiesTried = 30 * time.Second

// keepTrying keeps the copy again when the disk has refused it, or somebody has
// removed it.
func (a *App) keepTrying(s *liveSource) {
	ticker := time.NewTicker(copiesTried)
	defer ticker.Stop()
	for {
		select {
		case <-a.running.Done():
			return
		case <-ticker.C:
			a.keepCopy(s)
		}
	}
}

// changed takes a new version of a source, or its failure. A source that is
// bad does not hold up the others.
func (a *App) changed(s *liveSource, text sources.Document, err error) {
	defer a.survive("reloading definitions")
	a.reload.Lock()
	defer a.reload.Unlock()
	s.take(text, err)
	failed := a.sourceErrors()
	now := time.Now()
	if s.err == nil {
		program, err := a.compile(nil)
		if err != nil {
			failed = errors.Join(failed, err)
			// Perhaps it is another source that does not fit.
			program, err = a.compile(s)
		}
		if err == nil {
			a.take(program)
			a.report(news{Event: eventReloaded, At: now, Reason: s.Name(), Data: map[string]any{"source": s.Name(), "flags": a.rules.Load().Len()}})
			a.checkMentions()
			a.tellShadowed()
			for _, s := range a.sources {
				a.keepCopyOf(s)
			}
		}
	}
	old := a.failing.Load()
	switch {
	case failed == nil:
		a.failing.Store(nil)
	case old == nil || old.err.Error() != failed.Error():
		since := now
		if old != nil {
			since = old.since
		}
		a.failing.Store(&reloadFailure{since, failed})
		a.report(news{Event: eventReloadFailed, At: now, Reason: failed.Error()})
	}
}

// sourceErrors joins why sources' words are not in force.
func (a *App) sourceErrors() error {
	var errs []error
	for _, s := range a.sources {
		if s.err != nil {
			errs = append(errs, s.err)
		}
	}
	return errors.Join(errs...)
}

// keepCopy keeps what is in force of a remote source, for when it does not answer.
func (a *App) keepCopy(s *liveSource) {
	defer a.survive("keeping a copy of definitions")
	a.reload.Lock()
	defer a.reload.Unlock()
	a.keepCopyOf(s)
}

// keepCopyOf is keepCopy for a caller that holds reload.
func (a *App) keepCopyOf(s *liveSource) {
	if s.remote == "" || s.inForce.doc == nil {
		return
	}
	a.engine.keepCopy(s.remote, s.inForce.text)
	if s.kept == nil || s.saved == s.inForce.text.Revision && s.kept.Exists() {
		return
	}
	err := s.kept.Save(s.inForce.text)
	if err == nil {
		s.saved = s.inForce.text.Revision
		s.unsaved.Store(nil)
		return
	}
	err = fmt.Errorf("the last good copy of %s is not the newest: %w", s.Name(), err)
	if before := s.unsaved.Swap(&err); before == nil || (*before).Error() != err.Error() {
		a.log.Warn("what a remote source says cannot be kept on disk: a start without it will have the copy of before; tried again", zap.String("source", s.Name()), zap.Error(err))
	}
}

// tellShadowed logs flags that several sources define, once.
func (a *App) tellShadowed() {
	for _, s := range a.rules.Load().Shadowed() {
		if a.engine.firstTime("shadowed " + s.Flag + " " + s.Source + " " + s.By) {
			a.log.Warn("a flag is defined in several sources; the later one holds", zap.String("flag", s.Flag), zap.String("earlier", s.Source), zap.String("later", s.By))
		}
	}
}
