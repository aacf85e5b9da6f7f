package state

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestFeedback(t *testing.T) {
	dir := t.TempDir()
	s := Open(dir, quick())
	said := func(i int, flag, voter, rating string) {
		t.Helper()
		f, p := s.AddFeedback(start.Add(time.Duration(i)*time.Hour), Feedback{Flag: flag, Variant: "on", Canary: true, Split: true, Rating: rating, Voter: voter, Comment: "so\xff"})
		if err := p.Wait(t.Context()); err != nil || f.ID == "" || !f.At.Equal(start.Add(time.Duration(i)*time.Hour)) {
			t.Fatalf("%+v %v", f, err)
		}
	}
	said(0, "a", "v1", "1")
	said(1, "b", "v1", "up")
	said(2, "a", "v2", "5")
	said(3, "a", "", "down")
	said(4, "a", "", "down")
	said(5, "a", "v1", "4") // another word of v1
	now := start.Add(6 * time.Hour)
	check := func(s *Store, now time.Time, filter FeedbackFilter, want string) {
		t.Helper()
		var got []string
		for _, f := range s.Feedback(now, filter) {
			got = append(got, f.Flag+f.Voter+":"+f.Rating)
			if f.Comment != "so\uFFFD" || f.Variant != "on" || !f.Canary || !f.Split {
				t.Errorf("%+v", f)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%+v gives %q, want %q", filter, got, want)
		}
	}
	for _, s := range []*Store{s, func() *Store { mustClose(t, s); return Open(dir, quick()) }()} {
		check(s, now, FeedbackFilter{}, "av1:4 a:down a:down av2:5 bv1:up")
		check(s, now, FeedbackFilter{Flag: "a", Limit: 2}, "av1:4 a:down")
		check(s, now, FeedbackFilter{Flag: "c"}, "")
		check(s, start.Add(90*24*time.Hour+150*time.Minute), FeedbackFilter{}, "av1:4 a:down a:down")
		defer mustClose(t, s)
	}
	if _, p := s.AddFeedback(now, Feedback{Rating: "1"}); p.Err() == nil {
		t.Error("feedback about no flag is taken")
	}
}

// A later word counts, whatever the clock says.
func TestFeedbackWhenTheClockGoesBack(t *testing.T) {
	dir := t.TempDir()
	s := Open(dir, quick())
	_, p := s.AddFeedback(start, Feedback{Flag: "a", Rating: "1", Voter: "v"})
	if err := p.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	s = Open(dir, quick())
	defer mustClose(t, s)
	_, p = s.AddFeedback(start.Add(-time.Hour), Feedback{Flag: "a", Rating: "5", Voter: "v"})
	if err := p.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s.Feedback(start, FeedbackFilter{}); len(got) != 1 || got[0].Rating != "5" {
		t.Errorf("%+v", got)
	}
}

// A flood keeps to its bound, and the newest of it is there.
func TestFeedbackIsBounded(t *testing.T) {
	dir := t.TempDir()
	s := Open(dir, quick())
	const n = 100_000
	for i := range n {
		s.AddFeedback(start.Add(time.Duration(i)*time.Millisecond), Feedback{Flag: "a", Variant: "on", Rating: "1", Voter: fmt.Sprint(i), Comment: strings.Repeat("x", i%500)})
		if i%5000 == 0 {
			eventually(t, "feedback written", func() bool { return s.Health().Waiting == 0 })
			if size := len(read(t, s.path(FeedbackName))); size > 8<<20 {
				t.Fatalf("%d bytes after %d, want at most 8 MiB", size, i)
			}
		}
	}
	mustClose(t, s)
	if size := len(read(t, s.path(FeedbackName))); size > 8<<20 {
		t.Errorf("%d bytes, want at most 8 MiB", size)
	}
	again := Open(dir, quick())
	defer mustClose(t, again)
	got := again.Feedback(start.Add(time.Hour), FeedbackFilter{})
	if len(got) < 5000 || got[0].Voter != fmt.Sprint(n-1) {
		t.Fatalf("%d are kept, the newest of %s", len(got), got[0].Voter)
	}
	// What has aged is gone.
	for i := range 10_000 {
		again.AddFeedback(start.Add(100*24*time.Hour), Feedback{Flag: "a", Rating: "5", Voter: fmt.Sprint("new", i%10)})
	}
	eventually(t, "written", func() bool { return again.Health().Waiting == 0 })
	if left := len(again.Feedback(start.Add(100*24*time.Hour), FeedbackFilter{})); left != 10 {
		t.Errorf("%d are left, want 10", left)
	}
}

// What a full disk has not taken is not said to be there, whichever journal it is that
// cannot be written.
func TestFeedbackOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	f := &faults{after: -1, only: FeedbackName}
	o := quick()
	o.files = f.files()
	s := Open(dir, o)
	_, p := s.AddFeedback(start, Feedback{Flag: "a", Rating: "1", Voter: "before"})
	mustSync(t, p)
	f.set(0, true)
	for _, voter := range []string{"v", "w"} { // the one that finds out, and the one after
		if _, p = s.AddFeedback(start, Feedback{Flag: "a", Rating: "1", Voter: voter}); !errors.Is(p.Wait(t.Context()), syscall.ENOSPC) {
			t.Errorf("%s: %v, want ENOSPC", voter, p.Err())
		}
		trip(t, s, voter) // the journal of trips is well
	}
	f.set(-1, false)
	eventually(t, "healthy again", func() bool { h := s.Health(); return !h.Degraded && h.Waiting == 0 })
	_, p = s.AddFeedback(start, Feedback{Flag: "a", Rating: "1", Voter: "after"})
	mustSync(t, p)
	mustClose(t, s)
	if again := Load(dir, quick()); len(again.Feedback(start, FeedbackFilter{})) != 4 {
		t.Errorf("%+v", again.Feedback(start, FeedbackFilter{}))
	}
	if _, p = s.AddFeedback(start, Feedback{Flag: "a", Rating: "1"}); !errors.Is(p.Err(), ErrClosed) {
		t.Errorf("after Close: %v", p.Err())
	}
}
