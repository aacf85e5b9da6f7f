package caddymodule

import (
	"net/url"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/seed-6adbc061/caddy-feature-flags/sources"
)

// parseSource reads the option `source` of the global feature_flags.
func (a *App) parseSource(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) == 0 || args[0] != "file" && args[0] != "http" {
		return d.Errf("source: want `file` and a path or `http` and an address, got %q", args)
	}
	s := Source{Type: args[0]}
	var err error
	switch {
	case s.Type == "file" && len(args) == 2:
		s.Path = args[1]
		err = s.parseFile(d)
	case s.Type == "file":
		err = d.Errf("source file: want one path, got %d", len(args)-1)
	case len(args) == 2:
		s.URL = args[1]
		err = s.parseHTTP(d)
	default: // without the address: it may hold a secret
		err = d.Errf("source http: want one address, got %d", len(args)-1)
	}
	a.Sources = append(a.Sources, s)
	return err
}

func (s *Source) parseFile(d *caddyfile.Dispenser) error {
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if option := d.Val(); option != "poll" {
			return unknownOption(d, "source file", option, "poll")
		}
		if err := s.parsePoll(d, 100*time.Millisecond, "100ms"); err != nil {
			return err
		}
	}
	return nil
}

func (s *Source) parseHTTP(d *caddyfile.Dispenser) error {
	if u, err := url.Parse(s.URL); len(s.URL) > 0 && s.URL[0] != '{' && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		return d.Err("source http: want an address as https://flags.example/shop.json")
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch option := d.Val(); option {
		case "poll":
			err = s.parsePoll(d, sources.MinHTTPPoll, "1s")
		case "header":
			err = header(d, option, &s.Header)
		case "timeout":
			if s.Timeout != 0 {
				return d.Err("timeout: is given twice")
			}
			err = timeLimit(d, option, "10s", &s.Timeout)
		case "max_size":
			err = parseSize(d, option, &s.MaxSize)
		case "optional":
			err = set(d, option, &s.Optional)
		default:
			err = unknownOption(d, "source http", option, "poll", "header", "timeout", "max_size", "optional")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Source) parsePoll(d *caddyfile.Dispenser, least time.Duration, word string) error {
	if s.Poll != 0 {
		return d.Err("poll: is given twice")
	}
	var text string
	if err := one(d, "poll", "an interval as 2s", &text); err != nil {
		return err
	}
	poll, err := caddy.ParseDuration(text)
	if err != nil || poll < least || poll > time.Hour {
		return d.Errf("poll: want an interval from %s to 1h, got %q", word, text)
	}
	s.Poll = caddy.Duration(poll)
	return nil
}
