package state

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestAuditFilter(t *testing.T) {
	s := Open("", Options{})
	for i := range 6 {
		s.Note(start.Add(time.Duration(i)*time.Second), AuditEntry{
			Action: "step", Flag: string(rune('a' + i%2)), By: "rollout", Reason: fmt.Sprint(i), Detail: []byte(`{"to": 5}`),
		})
	}
	for _, c := range []struct {
		name   string
		filter AuditFilter
		want   string
	}{
		{"all", AuditFilter{}, "5 4 3 2 1 0"},
		{"limit", AuditFilter{Limit: 2}, "5 4"},
		{"flag", AuditFilter{Flag: "a"}, "4 2 0"},
		{"flag and limit", AuditFilter{Flag: "b", Limit: 1}, "5"},
		{"no such flag", AuditFilter{Flag: "c"}, ""},
		{"negative limit", AuditFilter{Limit: -1}, "5 4 3 2 1 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, e := range s.Audit(c.filter) {
				got = append(got, e.Reason)
				if string(e.Detail) != `{"to":5}` || e.ID == "" || e.At.IsZero() {
					t.Errorf("entry %+v", e)
				}
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestAuditOfWhatTheStoreDoes(t *testing.T) {
	s := Open("", Options{})
	s.Trip(start, TripInput{Flag: "a", Test: "errors", Evidence: []byte(`{"big":1}`)})
	s.Reset(start, "a", "ops", "fixed")
	s.Reset(start, "a", "ops", "again") // Nothing to clear: nothing to tell.
	s.Override(start, "a", Disabled, "ops", "")
	s.Override(start, "a", Enabled, "ops", "")
	s.Override(start, "a", Cleared, "ops", "")
	s.SetProgress(start, "a", []byte("1"))
	var got []string
	for _, e := range s.Audit(AuditFilter{Flag: "a"}) {
		got = append(got, e.Action+" by "+e.By)
		if strings.Contains(string(e.Detail), "big") {
			t.Errorf("the evidence stands in the audit: %s", e.Detail)
		}
	}
	want := "cleared by ops, enabled by ops, disabled by ops, reset by ops, tripped by guard"
	if strings.Join(got, ", ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAuditIsBoundedInMemoryAndOnDisk(t *testing.T) {
	dir := t.TempDir()
	s := Open(dir, quick())
	big := []byte(`"` + strings.Repeat("x", 3000) + `"`)
	for i := range 12_000 {
		var d []byte
		if i%3 == 0 {
			d = big
		}
		s.Note(start.Add(time.Duration(i)*time.Millisecond), AuditEntry{Action: "step", Flag: "a", Reason: fmt.Sprint(i), Detail: d})
		if i%500 == 0 {
			eventually(t, "audit written", func() bool { return s.Health().Waiting == 0 })
			if n := len(read(t, s.path(AuditName))); n > 8<<20 {
				t.Fatalf("audit of %d bytes after %d entries, want at most 8 MiB", n, i)
			}
		}
	}
	mustClose(t, s)
	if n := len(read(t, s.path(AuditName))); n > 8<<20 {
		t.Errorf("audit of %d bytes, want at most 8 MiB", n)
	}
	again := Open(dir, quick())
	defer again.Close()
	got := again.Audit(AuditFilter{})
	if len(got) > 10_000 || len(got) < 1000 || got[0].Reason != "11999" {
		t.Fatalf("%d entries, newest %q", len(got), got[0].Reason)
	}
	for i, e := range got {
		if e.Reason != fmt.Sprint(11_999-i) {
			t.Fatalf("entry %d is %s", i, e.Reason)
		}
	}
}

func TestAuditCountIsBounded(t *testing.T) {
	a := newDiary(100, 1<<20)
	for i := range 1000 {
		a.noteAudit(start, AuditEntry{Action: "step", Reason: fmt.Sprint(i)})
	}
	if len(a.entries) != 100 || len(a.known) != 100 || a.count != 100 || len(a.batch(1<<30)) != 100 {
		t.Errorf("%d entries, %d known, %d wait", len(a.entries), len(a.known), a.count)
	}
	if got := a.findAudit(AuditFilter{Limit: 1})[0].Reason; got != "999" {
		t.Errorf("newest %s", got)
	}
}
