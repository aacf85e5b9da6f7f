// Command caddy is Caddy with the feature_flags plugin built in: the same
// program that xcaddy would build.
package main

import (
	_ "time/tzdata"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	_ "github.com/seed-6adbc061/caddy-feature-flags"
)

func main() {
	caddycmd.Main()
}
