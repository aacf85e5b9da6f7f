package state

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// childEnv names what the test binary does instead of testing when a test starts it again.
const childEnv = "STATE_TEST_CHILD"

var children = map[string]func(dir string){}

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		children[name](os.Args[len(os.Args)-1])
		return
	}
	goleak.VerifyTestMain(m)
}

// start is a moment that retention, which goes by the clock, leaves alone.
var start = time.Now().UTC().Truncate(time.Hour)

// quick are options that retry without making a test wait.
func quick() Options {
	return Options{Instance: "test", RetryMin: time.Millisecond, RetryMax: 5 * time.Millisecond}
}

func mustSync(t testing.TB, p *Pending) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := p.Wait(ctx); err != nil {
		t.Fatal(err)
	}
}

func mustClose(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// trip records a trip and waits for the disk.
func trip(t testing.TB, s *Store, flag string) Trip {
	t.Helper()
	tr, p := s.Trip(start, TripInput{Flag: flag, Test: "errors", Evidence: []byte(`{"flag":"` + flag + `"}`)})
	mustSync(t, p)
	return tr
}

// eventually waits for what the store's goroutine does.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in 20 s: %s", what)
		}
	}
}

// wantOpen compares the ids of open trips, in any order: tests make them in several stores at one moment.
func wantOpen(t testing.TB, s *Store, flag string, want ...string) {
	t.Helper()
	got := slices.Sorted(slices.Values(ids(s.Flag(flag).Trips)))
	want = slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		t.Errorf("open trips of %s: %v, want %v", flag, got, want)
	}
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
