package caddymodule

import "github.com/seed-6adbc061/caddy-feature-flags/sources"

// copyOf returns what a remote source said last that was in force.
func (e *engine) copyOf(address string) (text sources.Document, known bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	text, known = e.copies[address]
	return text, known
}

// keepCopy keeps that over reloads.
func (e *engine) keepCopy(address string, text sources.Document) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.copies[address] = text
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
