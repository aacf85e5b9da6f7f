// Package featureflags adds feature flags with a kill switch to Caddy. It only
// imports the modules, so that `xcaddy build --with` of this path is enough;
// package caddymodule documents them.
package featureflags

import _ "github.com/seed-6adbc061/caddy-feature-flags/caddymodule" // registers the modules
