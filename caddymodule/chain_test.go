package caddymodule

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/evaluator"
)

const (
	oneSecret     = "one-secret-of-16-bytes-or-more"
	anotherSecret = "another-secret-of-16-bytes"
)

func testSigner(t testing.TB, purpose string, secrets ...string) *signer {
	t.Helper()
	s, err := configuredSigner(purpose, secrets)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSigner(t *testing.T) {
	s := testSigner(t, "decisions", oneSecret)
	sum := s.sign("a", "b")
	if len(sum) != macLength || !s.verify(sum, "a", "b") {
		t.Fatalf("%q does not verify", sum)
	}
	for name, ok := range map[string]bool{
		"other parts":     s.verify(sum, "a", "c"),
		"shifted parts":   s.verify(sum, "ab", ""),
		"one part":        s.verify(sum, "a\x00b"),
		"fewer parts":     s.verify(sum, "a"),
		"truncated":       s.verify(sum[:42], "a", "b"),
		"longer":          s.verify(sum+"A", "a", "b"),
		"empty":           s.verify("", "a", "b"),
		"another key":     testSigner(t, "decisions", anotherSecret).verify(sum, "a", "b"),
		"another purpose": testSigner(t, "override", oneSecret).verify(sum, "a", "b"),
	} {
		if ok && name != "one part" { // parts hold no zero byte
			t.Errorf("%s verifies", name)
		}
	}
	for i := range sum {
		bad := []byte(sum)
		bad[i] ^= 1
		if s.verify(string(bad), "a", "b") {
			t.Errorf("letter %d may be another one", i)
		}
	}
	both := testSigner(t, "decisions", anotherSecret, oneSecret)
	if !both.verify(sum, "a", "b") || !both.isPseudonym(s.pseudonym("ann"), "ann") || both.isPseudonym(s.pseudonym("ann"), "bob") {
		t.Error("a key that is about to go does not verify")
	}
	for _, secrets := range [][]string{nil, {"short"}, {oneSecret, ""}, {"{env.NOT_THERE_AT_ALL}"}} {
		if _, err := configuredSigner("x", secrets); err == nil {
			t.Errorf("%q are taken for keys", secrets)
		} else if len(secrets) > 0 && secrets[0] != "" && strings.Contains(err.Error(), "short") && strings.Contains(err.Error(), `"short"`) {
			t.Errorf("the error tells the secret: %v", err)
		}
	}
}

func signedLine(s *signer, expiry time.Time, user, environment, decisions string) string {
	head := decisionsWord + "." + strconv.FormatInt(expiry.Unix(), 10) + "." + user
	return head + "." + s.sign(head, environment, decisions) + " " + decisions
}

func TestTrustReads(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	s := testSigner(t, "decisions", oneSecret)
	trust := &Trust{signer: s}
	soon := now.Add(30 * time.Second)
	good := signedLine(s, soon, "-", "production", "a;r=s, b=?0;r=d")
	if user, decisions, cause := trust.read([]string{good}, "production", now); user != "-" || decisions != "a;r=s, b=?0;r=d" || cause != "" {
		t.Fatalf("%q %q %q", user, decisions, cause)
	}
	f := func(name, want string, lines ...string) {
		t.Helper()
		if _, _, cause := trust.read(lines, "production", now); cause != want {
			t.Errorf("%s: %q, want %q", name, cause, want)
		}
	}
	f("two lines", chainMalformed, good, good)
	f("empty", chainMalformed, "")
	f("a word", chainMalformed, "a")
	f("no decisions", chainMalformed, strings.TrimSuffix(good, " a;r=s, b=?0;r=d"))
	f("another version", chainMalformed, "v2"+good[2:])
	f("too few parts", chainMalformed, "v1.1.2 a")
	f("oversized", chainLarge, signedLine(s, soon, "-", "production", strings.Repeat("a, ", 4096)))
	f("expired", chainExpired, signedLine(s, now, "-", "production", "a"))
	f("for too long", chainExpired, signedLine(s, now.Add(2*time.Hour), "-", "production", "a"))
	f("another key", chainForged, signedLine(testSigner(t, "decisions", anotherSecret), soon, "-", "production", "a"))
	f("another environment", chainForged, signedLine(s, soon, "-", "staging", "a"))
	f("a longer life", chainForged, strings.Replace(good, strconv.FormatInt(soon.Unix(), 10), strconv.FormatInt(soon.Unix()+1, 10), 1))
	f("another decision", chainForged, strings.Replace(good, "b=?0", "b", 1))
	f("another user", chainForged, strings.Replace(good, ".-.", ".x.", 1))
	f("truncated", chainForged, good[:len(good)-1])
	for i := range good {
		bad := []byte(good)
		bad[i] ^= 2
		if _, _, cause := trust.read([]string{string(bad)}, "production", now); cause == "" {
			t.Errorf("byte %d may be another one", i)
		}
	}
}

// Whatever comes in the header, nothing is believed that was not signed.
func FuzzTrust(f *testing.F) {
	now := time.Unix(1_800_000_000, 0)
	s := testSigner(f, "decisions", oneSecret)
	good := signedLine(s, now.Add(time.Minute), "-", "production", "f;r=s")
	f.Add(good)
	f.Add("v1.1800000060.-." + strings.Repeat("A", macLength) + " f")
	f.Add("v1..-.. ")
	h := &Handler{Trust: &Trust{signer: s}}
	doc, err := evaluator.Decode("f", []byte(`{"f": {"active": true, "percentage_rollout": 0}}`))
	if err != nil {
		f.Fatal(err)
	}
	program, err := evaluator.Compile(doc)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, line string) {
		_, _, cause := h.Trust.read([]string{line}, "production", now)
		if cause == "" && line != good {
			t.Fatalf("%q is believed", line)
		}
		// What an earlier hop signs may be anything all the same.
		rq := &request{rules: &rules{Ruleset: program.With(nil), names: []string{"f"}}, arrival: now}
		rq.eval.Reset(rq.rules.Ruleset, &rq.ctx, now)
		_, _ = h.believe(rq, nobody, line)
		for _, o := range rq.imposed {
			if o.flag != 0 || o.decision.Variant != evaluator.On && o.decision.Variant != evaluator.Off {
				t.Fatalf("%+v", o)
			}
		}
	})
}

func TestReasonLetters(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range evaluator.Reasons {
		letter := reasonLetters[r]
		if letter == "" || seen[letter] || reasonOf(letter) != r {
			t.Errorf("%s has the letter %q", r, letter)
		}
		seen[letter] = true
	}
}
