package caddymodule

import "github.com/seed-6adbc061/caddy-feature-flags/sources"

// copyOf returns what a remote source said last that was in force, by all that it is
// asked with.
func (e *engine) copyOf(remote string) (text sources.Document, known bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	text, known = e.copies[remote]
	return text, known
}

// keepCopy keeps that over reloads.
func (e *engine) keepCopy(remote string, text sources.Document) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.copies[remote] = text
}

// firstTime tells whether something is told for the first time.
func (e *engine) firstTime(what string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.said[what] {
		return false
	}
	e.said[what] = true
	return true
}
