package caddymodule

import (
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

func parseGlobal(d *caddyfile.Dispenser, existing any) (any, error) {
	if existing != nil {
		d.Next() // for the place in the error
		return nil, d.Err("feature_flags: is given twice; put everything into one block")
	}
	app := new(App)
	if err := app.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: "feature_flags", Value: caddyconfig.JSON(app, nil)}, nil
}

// UnmarshalCaddyfile reads the global option
//
//	feature_flags [<file>] {
//		source file <path> {
//			poll <interval>
//		}
//		source http <url> {
//			poll     <interval>
//			header   <name> <value>
//			timeout  <duration>
//			max_size <size>
//			optional
//		}
//		webhook [cloudevents|slack|pagerduty] [<url>] {
//			secret      <secrets...>
//			format      cloudevents|slack|pagerduty
//			name        <name>
//			events      <types...>
//			header      <name> <value>
//			timeout     <duration>
//			routing_key <key>
//		}
//		environment <name>
//		state local <directory>
//		state memory
//	}
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the option's name
	if d.NextArg() {
		a.Sources = append(a.Sources, Source{Type: "file", Path: d.Val()})
		if d.NextArg() {
			return d.Errf("feature_flags: want one file, unexpected %q; for several write `source file` for each in a block", d.Val())
		}
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch option := d.Val(); option {
		case "source":
			err = a.parseSource(d)
		case "webhook":
			err = a.parseWebhook(d)
		case "environment":
			err = one(d, option, "a name", &a.Environment)
		case "state":
			err = a.parseState(d)
		default:
			err = unknownOption(d, "feature_flags", option, "source", "webhook", "environment", "state")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *App) parseState(d *caddyfile.Dispenser) error {
	if a.State != nil {
		return d.Err("state: is given twice")
	}
	args := d.RemainingArgs()
	switch {
	case len(args) == 2 && args[0] == "local":
		a.State = &State{Type: "local", Path: args[1]}
	case len(args) == 1 && args[0] == "memory":
		a.State = &State{Type: "memory"}
	default:
		return d.Errf("state: want `local` and a directory, or `memory`, got %q", args)
	}
	return noBlock(d, "state")
}
