package history

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/goleak"
)

// childEnv names what the test binary does instead of testing when a test starts it again.
const childEnv = "HISTORY_TEST_CHILD"

var children = map[string]func(path string){}

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		children[name](os.Args[len(os.Args)-1])
		return
	}
	goleak.VerifyTestMain(m)
}

// start is a full hour.
var start = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

func minute(n int) time.Time {
	return start.Add(time.Duration(n) * time.Minute)
}

// patient are options that wait for the disk of a busy machine.
func patient() Options {
	return Options{patience: time.Minute}
}

// quick are options that do not sync either.
func quick() Options {
	o := patient()
	o.faults = &faults{noSync: true}
	return o
}

func temp(t testing.TB) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "history.db")
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// row is a row of a flag with some requests of its canary, and ten times as many of its control.
func row(flag string, requests uint64) Row {
	r := Row{Flag: flag, TripAt: 6.908, Percentage: 12.5, Status: "split"}
	r.Canary.Requests, r.Canary.Latency[5] = requests, requests
	r.Control.Requests, r.Control.Latency[4] = 10*requests, 10*requests
	return r
}

// busyRows are rows as they come from a site with traffic.
func busyRows(flags, round int) []Row {
	rows := make([]Row, flags)
	for i := range rows {
		logE := float64((i*7+round*13)%9000) / 1000
		r := Row{Flag: fmt.Sprintf("checkout_flow_%04d", i), LogE: &logE, TripAt: 6.908, Percentage: 12.5, Status: "split"}
		for c, n := range map[*Counts]uint64{&r.Canary: uint64(200 + i%100), &r.Control: uint64(2000 + i%1000)} {
			c.Requests, c.Errors, c.Gone = n, n/100, n/50
			for b := 3; b < 10; b++ {
				c.Latency[b] = n / 8
			}
		}
		rows[i] = r
	}
	return rows
}

func query(t testing.TB, h *History, flag string, from, to time.Time) Series {
	t.Helper()
	s, err := h.Query(flag, from, to)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// canary sums the requests of the canary up, which tests count with.
func canary(s Series) (n uint64) {
	for _, p := range s.Points {
		n += p.Canary.Requests
	}
	return n
}

// wantSums wants the canary's requests to be as many in each resolution. The range is so long that one has to be asked
// directly.
func wantSums(t testing.TB, h *History, flag string, want uint64) {
	t.Helper()
	f := h.file.Load()
	if f == nil {
		t.Fatalf("no file: %v", h.Health())
	}
	must(t, f.view(func(tx *bbolt.Tx) error {
		for _, r := range resolutions {
			var got uint64
			disk{tx}.each(&r, 0, ^uint32(0), func(_ uint32, entries []byte) error {
				row, err := pick(entries, flag)
				if row != nil {
					got += row.Canary.Requests
				}
				return err
			})
			if got != want {
				t.Errorf("%s: %d requests of %s, want %d", r.bucket, got, flag, want)
			}
		}
		return nil
	}))
}

// checkFile has bbolt check its structure, and verify agree.
func checkFile(t testing.TB, path string) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	st, err := f.Stat()
	must(t, err)
	if broken, err := verify(f, st.Size()); err != nil || broken > 0 {
		t.Errorf("verify: %d broken, %v", broken, err)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	must(t, err)
	defer db.Close()
	must(t, db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			t.Errorf("bbolt: %v", err)
		}
		return nil
	}))
}
