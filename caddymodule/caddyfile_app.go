package caddymodule

import (
	"time"

	"github.com/caddyserver/caddy/v2"
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
		case "environment":
			err = one(d, option, "a name", &a.Environment)
		case "state":
			err = a.parseState(d)
		default:
			err = unknownOption(d, "feature_flags", option, "source", "environment", "state")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *App) parseSource(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) == 0 || args[0] != "file" {
		return d.Errf("source: want `file` and a path, got %q", args)
	}
	if len(args) != 2 {
		return d.Errf("source file: want one path, got %d", len(args)-1)
	}
	s := Source{Type: "file", Path: args[1]}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch option := d.Val(); option {
		case "poll":
			var text string
			if err := one(d, option, "an interval as 2s", &text); err != nil {
				return err
			}
			poll, err := caddy.ParseDuration(text)
			if err != nil || poll < 100*time.Millisecond || poll > time.Hour {
				return d.Errf("poll: want an interval from 100ms to 1h, got %q", text)
			}
			s.Poll = caddy.Duration(poll)
		default:
			return unknownOption(d, "source file", option, "poll")
		}
	}
	a.Sources = append(a.Sources, s)
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
