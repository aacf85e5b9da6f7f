// Package console holds what the web console is made of: templates and static
// files, embedded. What they show comes from caddymodule.
package console

import "embed"

// Files are templates/*.html, and static/* for browsers.
//
//go:embed templates/*.html static/*
var Files embed.FS
