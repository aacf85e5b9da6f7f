package caddymodule

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestLinks(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	s := testSigner(t, "override", oneSecret)
	made, err := makeLink(s, linkRequest{URL: "https://Shop.example:8443/x?a=1", Flags: map[string]string{"new_ui": "on", "colour": "red"}, For: "2h", Force: true}, now)
	if err != nil || !strings.HasPrefix(made.Link, "https://Shop.example:8443/x?a=1&feature_flags_override=v1.") || !made.Expires.Equal(now.Add(2*time.Hour)) {
		t.Fatalf("%+v, %v", made, err)
	}
	_, token, _ := strings.Cut(made.Cookie, "=")
	l, err := readLink(s, token, hostOf("shop.example:443"), now)
	if err != nil || l.ID != made.ID || l.Flags["new_ui"] != "on" || l.Flags["colour"] != "red" || len(l.Flags) != 2 || !l.Force {
		t.Fatalf("%+v, %v", l, err)
	}
	f := func(name, token, host string, at time.Time, s *signer, want error) {
		t.Helper()
		if _, err := readLink(s, token, host, at); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	f("another site", token, "other.example", now, s, errLinkForged)
	f("expired", token, "shop.example", now.Add(2*time.Hour), s, errLinkExpired)
	f("wrong key", token, "shop.example", now, testSigner(t, "override", anotherSecret), errLinkForged)
	f("of another purpose", token, "shop.example", now, testSigner(t, "decisions", oneSecret), errLinkForged)
	f("truncated", token[:len(token)-1], "shop.example", now, s, errLinkForged)
	f("without its end", strings.Join(strings.Split(token, ".")[:4], "."), "shop.example", now, s, errLinkMalformed)
	f("empty", "", "shop.example", now, s, errLinkMalformed)
	f("huge", strings.Repeat("x", 10_000), "shop.example", now, s, errLinkMalformed)
	f("a longer life", strings.Replace(token, strconv.FormatInt(made.Expires.Unix(), 10), strconv.FormatInt(made.Expires.Unix()+1, 10), 1), "shop.example", now, s, errLinkForged)
	for i := range token {
		bad := []byte(token)
		bad[i] ^= 1
		if _, err := readLink(s, string(bad), "shop.example", now); err == nil {
			t.Errorf("letter %d may be another one", i)
		}
	}
	for want, q := range map[string]linkRequest{
		"url: want the address":     {URL: "shop.example", Flags: map[string]string{"a": "on"}},
		"flags: want one":           {URL: "https://shop.example"},
		`for: want a duration`:      {URL: "https://shop.example", Flags: map[string]string{"a": "on"}, For: "31d"},
		`for: want a duration from`: {URL: "https://shop.example", Flags: map[string]string{"a": "on"}, For: "0s"},
	} {
		if _, err := makeLink(s, q, now); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", q, err, want)
		}
	}
	if hostOf("[::1]:80") != "::1" || hostOf("Shop.Example") != "shop.example" || hostOf("127.0.0.1:8080") != "127.0.0.1" {
		t.Error("hosts")
	}
}

// No text but one that was signed is a link.
func FuzzLink(f *testing.F) {
	now := time.Unix(1_800_000_000, 0)
	s := testSigner(f, "override", oneSecret)
	link := testerLink{ID: "x", Host: "a.example", Flags: map[string]string{"f": "on"}, Expires: now.Add(time.Hour)}
	good := link.token(s) // the same in each of the fuzzer's processes
	f.Add(good)
	f.Add("v1.1900000000.x.Zj1hJTNEb24." + strings.Repeat("A", macLength))
	f.Add("v1....")
	f.Fuzz(func(t *testing.T, token string) {
		if l, err := readLink(s, token, "a.example", now); err == nil && token != good {
			t.Fatalf("%q is believed: %+v", token, l)
		}
	})
}

func TestPins(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	s := testSigner(t, "pin", oneSecret)
	value := pin{"on", now, now.Add(time.Minute)}.value(s, "new_ui")
	p, ok := readPin(s, "new_ui", value)
	if !ok || p.variant != "on" || !p.issued.Equal(now) || !p.expires.Equal(now.Add(time.Minute)) {
		t.Fatalf("%+v %t", p, ok)
	}
	for name, bad := range map[string]bool{
		"another flag": func() bool { _, ok := readPin(s, "other", value); return ok }(),
		"another key":  func() bool { _, ok := readPin(testSigner(t, "pin", anotherSecret), "new_ui", value); return ok }(),
		"truncated":    func() bool { _, ok := readPin(s, "new_ui", value[:len(value)-1]); return ok }(),
		"empty":        func() bool { _, ok := readPin(s, "new_ui", ""); return ok }(),
		"huge":         func() bool { _, ok := readPin(s, "new_ui", strings.Repeat("~", 10_000)); return ok }(),
	} {
		if bad {
			t.Errorf("%s: is believed", name)
		}
	}
	for i := range value {
		bad := []byte(value)
		bad[i] ^= 1
		if _, ok := readPin(s, "new_ui", string(bad)); ok {
			t.Errorf("letter %d may be another one", i)
		}
	}
}

// No text but one that was signed is a pin.
func FuzzPin(f *testing.F) {
	now := time.Unix(1_800_000_000, 0)
	s := testSigner(f, "pin", oneSecret)
	good := pin{"on", now, now.Add(time.Minute)}.value(s, "f")
	f.Add(good)
	f.Add("on~a~b~" + strings.Repeat("A", macLength))
	f.Add("~~~")
	f.Fuzz(func(t *testing.T, value string) {
		if p, ok := readPin(s, "f", value); ok && value != good {
			t.Fatalf("%q is believed: %+v", value, p)
		}
	})
}
