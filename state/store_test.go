package state

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestStoreOverRestarts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "by", "open")
	s := Open(dir, Options{Instance: "i1"})
	tr, p := s.Trip(start, TripInput{Flag: "a", Test: "errors", Evidence: []byte(`{"p": 0.001}`), Definition: "abc"})
	if got := s.Flag("a"); !got.Tripped() || got.Trips[0].ID != tr.ID {
		t.Errorf("the trip is not in force at once: %+v", got)
	}
	mustSync(t, p)
	s.Trip(start, TripInput{Flag: "b", Test: "performance"})
	r, _ := s.Reset(start.Add(time.Second), "b", "ops", "fixed")
	o, _ := s.Override(start.Add(2*time.Second), "b", Disabled, "ops", "to be sure")
	mustSync(t, s.SetProgress(start.Add(3*time.Second), "c", []byte(`{ "step": 2 }`)))
	want, snapshot, audit := s.Flags(), s.Snapshot(), s.Audit(AuditFilter{})
	mustClose(t, s)
	if len(r.Trips) != 1 || o.Revision == 0 || len(want) != 3 || len(audit) != 4 {
		t.Fatalf("reset %+v, override %+v, %d flags, %d entries", r, o, len(want), len(audit))
	}

	again := Open(dir, Options{})
	defer again.Close()
	for name, d := range map[string]string{
		"flags":    cmp.Diff(want, again.Flags()),
		"snapshot": cmp.Diff(snapshot, again.Snapshot()),
		"audit":    cmp.Diff(audit, again.Audit(AuditFilter{})),
	} {
		if d != "" {
			t.Errorf("%s after a restart (-want +got):\n%s", name, d)
		}
	}
	f := again.Flag("a")
	if got := f.Trips[0]; got.Instance != "i1" || got.Definition != "abc" || string(got.Evidence) != `{"p":0.001}` || !got.At.Equal(start) {
		t.Errorf("trip %+v", got)
	}
	if h := again.Health(); h.Degraded || h.Waiting != 0 || h.SetAside != nil || h.Path != dir {
		t.Errorf("health %+v", h)
	}
}

// What is only loaded leaves no trace, has everything in force, and lets another
// store use the directory; what was recorded meanwhile is written by Begin.
func TestLoadOnlyReads(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := Load(dir, Options{})
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Load made the directory: %v", err)
	}
	_, p := s.Trip(start, TripInput{Flag: "a", Test: "errors"})
	if h := s.Health(); h.Degraded {
		t.Errorf("degraded before Begin: %+v", h)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close without Begin: %v", err)
	}
	if err := p.Wait(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("a record that was never written: %v, want ErrClosed", err)
	}
	s.Begin() // too late
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Begin after Close made the directory: %v", err)
	}

	holder := Open(dir, Options{})
	_, p = holder.Trip(start, TripInput{Flag: "b", Test: "errors"})
	mustSync(t, p)
	reader := Load(dir, Options{RetryMin: time.Millisecond})
	if !reader.Flag("b").Tripped() {
		t.Error("a trip on disk is not in force in a store that was loaded")
	}
	_, p = reader.Trip(start, TripInput{Flag: "c", Test: "errors"})
	mustClose(t, holder)
	reader.Begin()
	mustSync(t, p)
	mustClose(t, reader)
	again := Load(dir, Options{})
	if !again.Flag("b").Tripped() || !again.Flag("c").Tripped() {
		t.Errorf("after a restart: %+v", again.Flags())
	}
	mustClose(t, again)
}

func TestResetClearsWhatIsOpenAndNothingElse(t *testing.T) {
	s := Open("", Options{})
	one, _ := s.Trip(start, TripInput{Flag: "a", Test: "errors"})
	two, _ := s.Trip(start, TripInput{Flag: "a", Test: "traffic"})
	s.Trip(start, TripInput{Flag: "b", Test: "errors"})
	s.Override(start, "a", Disabled, "", "")
	wantOpen(t, s, "a", one.ID, two.ID)
	r, p := s.Reset(start, "a", "ops", "")
	mustSync(t, p)
	if d := cmp.Diff([]string{one.ID, two.ID}, r.Trips); d != "" {
		t.Error(d)
	}
	three, _ := s.Trip(start, TripInput{Flag: "a", Test: "errors"})
	wantOpen(t, s, "a", three.ID)
	if !s.Flag("b").Tripped() || s.Flag("a").Override.Kind != Disabled {
		t.Error("the reset touched something else")
	}
	if none, p := s.Reset(start, "c", "ops", ""); none.ID != "" || p.Err() != nil {
		t.Errorf("reset of nothing: %+v, %v", none, p.Err())
	}
}

func TestRefused(t *testing.T) {
	s := Open("", Options{})
	_, trip := s.Trip(start, TripInput{})
	_, unnamed := s.Override(start, "", Disabled, "", "")
	_, unknown := s.Override(start, "a", "off", "", "")
	for want, p := range map[string]*Pending{
		`trip: flag: empty, want a name`:                                             trip,
		`override: flag: empty, want a name`:                                         unnamed,
		`override: flag "a": unknown kind "off", want "enabled", "disabled" or none`: unknown,
		`progress: flag: empty, want a name`:                                         s.SetProgress(start, "", nil),
		`progress: flag "a": data: is no JSON`:                                       s.SetProgress(start, "a", []byte("{")),
		`progress: flag "a": data: is 1048579 bytes long, want at most 1048576`:      s.SetProgress(start, "a", []byte(`"`+strings.Repeat("x", MaxData+1)+`"`)),
	} {
		if p.Err() == nil || p.Err().Error() != want {
			t.Errorf("got %v, want %s", p.Err(), want)
		}
	}
	if len(s.Flags()) != 0 || len(s.Audit(AuditFilter{})) != 0 {
		t.Error("something was recorded")
	}
}

func TestWhateverATripCarriesItIsKept(t *testing.T) {
	huge := []byte(`"` + strings.Repeat("x", MaxData) + `"`)
	for _, c := range []struct {
		name, flag string
		evidence   []byte
		want       string
	}{
		{"none", "a", nil, ""},
		{"null", "a", []byte("null"), ""},
		{"spaces", "a", []byte("  "), ""},
		{"no JSON", "a", []byte("it broke\n"), `"it broke\n"`},
		{"no UTF-8", "a", []byte("\xff\xfe"), `"\ufffd\ufffd"`},
		{"line feeds", "a", []byte("{\n\"a\":\n1}\n"), `{"a":1}`},
		{"HTML", "a", []byte(`["<&>"]`), `["\u003c\u0026\u003e"]`},
		{"huge", "a", huge, `{"omitted_bytes":1048578}`},
		{"huge and no JSON", "a", huge[1:], `{"omitted_bytes":1048577}`},
		{"a name of no UTF-8", "a\xff", nil, ""},
		{"a long name", strings.Repeat("é", MaxText), nil, ""},
		{"line feeds in the name", "a\nb\r\u2028", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s := Open(dir, quick())
			tr, p := s.Trip(start, TripInput{Flag: c.flag, Test: "errors", Evidence: c.evidence})
			mustSync(t, p)
			if string(tr.Evidence) != c.want {
				t.Errorf("evidence %.60s, want %s", tr.Evidence, c.want)
			}
			mustClose(t, s)
			again := Open(dir, quick())
			defer again.Close()
			if d := cmp.Diff([]Trip{tr}, again.Flag(tr.Flag).Trips); d != "" {
				t.Errorf("after a restart (-want +got):\n%s", d)
			}
			if h := again.Health(); h.SetAside != nil {
				t.Errorf("damage: %+v", h)
			}
		})
	}
}

func TestTimesThatJSONCannotTell(t *testing.T) {
	s := Open(t.TempDir(), quick())
	defer s.Close()
	for _, now := range []time.Time{{}, time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(12345, 1, 1, 0, 0, 0, 0, time.UTC)} {
		_, p := s.Trip(now, TripInput{Flag: "a", Test: "errors"})
		mustSync(t, p)
	}
	if n := len(s.Flag("a").Trips); n != 3 {
		t.Errorf("%d trips", n)
	}
}

func TestPermissions(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := Open(dir, quick())
	trip(t, s, "a")
	mustClose(t, s)
	for path, want := range map[string]os.FileMode{dir: 0o700, s.path(JournalName): 0o600, s.path(AuditName): 0o600, s.path(LockName): 0o600} {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != want {
			t.Errorf("%s: %v, want %v", path, st.Mode().Perm(), want)
		}
	}
}

func TestCompaction(t *testing.T) {
	dir := t.TempDir()
	later := []byte(`{"lease":{"of":"next year"}}`)
	write(t, filepath.Join(dir, JournalName), frameLine(later))
	s := Open(dir, quick())
	kept := trip(t, s, "kept")
	now := time.Now()
	s.Trip(now.Add(-200*24*time.Hour), TripInput{Flag: "old", Test: "errors"})
	s.Reset(now.Add(-100*24*time.Hour), "old", "ops", "")
	s.Trip(now, TripInput{Flag: "recent", Test: "errors"})
	s.Reset(now, "recent", "ops", "")
	most := 0
	for i := range 3000 {
		p := s.SetProgress(now, "kept", fmt.Append(nil, i))
		if i%3 == 0 {
			mustSync(t, p)
		}
		most = max(most, bytes.Count(read(t, s.path(JournalName)), []byte("\n")))
	}
	if most < 900 || most > 1100 {
		t.Errorf("up to %d lines, want about 1,000", most)
	}
	mustClose(t, s)
	again := Open(dir, quick())
	defer again.Close()
	wantOpen(t, again, "kept", kept.ID)
	if got := again.Progress("kept").Data; string(got) != "2999" {
		t.Errorf("progress %s", got)
	}
	snapshot := again.Snapshot()
	if len(snapshot.Trips) != 2 || len(snapshot.Resets) != 1 {
		t.Errorf("%d trips, %d resets; want those that are open or recent: 2, 1", len(snapshot.Trips), len(snapshot.Resets))
	}
	if !bytes.Contains(read(t, s.path(JournalName)), frameLine(later)) {
		t.Error("a record of a later version was lost")
	}
	if _, err := os.Stat(s.path(JournalName) + ".tmp"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("temporary file: %v", err)
	}
}

func TestCompactionByBytes(t *testing.T) {
	s := Open(t.TempDir(), quick())
	defer s.Close()
	for i := range 30 {
		mustSync(t, s.SetProgress(start, "a", []byte(fmt.Sprintf(`"%d%s"`, i, strings.Repeat("x", 200<<10)))))
	}
	if n := len(read(t, s.path(JournalName))); n > 3<<19 {
		t.Errorf("%d bytes, want about 1 MiB", n)
	}
}

func TestSameProgressIsNotWritten(t *testing.T) {
	s := Open(t.TempDir(), quick())
	defer s.Close()
	for range 100 {
		mustSync(t, s.SetProgress(start, "a", []byte(`{"step": 1}`)))
		mustSync(t, s.SetProgress(start, "b", nil))
	}
	if n := bytes.Count(read(t, s.path(JournalName)), []byte("\n")); n != 1 {
		t.Errorf("%d lines", n)
	}
}

func TestMemoryOnPurpose(t *testing.T) {
	s := Open("", Options{})
	for i := range 5000 {
		mustSync(t, s.SetProgress(start, "a", fmt.Append(nil, i)))
	}
	trip(t, s, "a")
	if h := s.Health(); h.Degraded || h.Waiting != 0 || h.Path != "" {
		t.Errorf("health %+v", h)
	}
	if len(s.ledger.waiting) != 0 || len(s.audit.waiting) != 0 {
		t.Error("records pile up for a disk that is not there")
	}
	mustClose(t, s)
	mustClose(t, s)
}

func TestMergeOfTwoStores(t *testing.T) {
	a, b := Open(t.TempDir(), Options{Instance: "a"}), Open(t.TempDir(), Options{Instance: "b"})
	defer a.Close()
	defer b.Close()
	trip(t, a, "x")
	tb := trip(t, b, "x")
	b.Reset(start, "x", "ops", "")
	newer := trip(t, b, "x")
	a.Override(start, "y", Enabled, "ops", "")
	b.Override(start.Add(time.Second), "y", Disabled, "ops", "later")
	changed, p := a.Merge(start, b.Snapshot())
	mustSync(t, p)
	if d := cmp.Diff([]string{"x", "y"}, changed); d != "" {
		t.Error(d)
	}
	if got := ids(a.Flag("x").Trips); len(got) != 2 || strings.Contains(fmt.Sprint(got), tb.ID) || !strings.Contains(fmt.Sprint(got), newer.ID) {
		t.Errorf("open %v", got)
	}
	if a.Flag("y").Override.Reason != "later" {
		t.Error("the older override holds")
	}
	if changed, p := a.Merge(start, b.Snapshot()); changed != nil || p.Wait(t.Context()) != nil {
		t.Errorf("second merge changed %v", changed)
	}
	if o, _ := b.Override(start, "y", Cleared, "", ""); b.Flag("y").Override.Kind != Cleared || o.Revision <= a.Flag("y").Override.Revision {
		t.Error("an override of an instance whose clock is behind does not hold")
	}
	mustClose(t, a)
	again := Open(a.dir, Options{})
	defer again.Close()
	if d := cmp.Diff(a.Snapshot(), again.Snapshot()); d != "" {
		t.Errorf("after a restart (-want +got):\n%s", d)
	}
}

func TestUseAfterClose(t *testing.T) {
	s := Open(t.TempDir(), quick())
	mustClose(t, s)
	tr, p := s.Trip(start, TripInput{Flag: "a", Test: "errors"})
	if err := p.Wait(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
	wantOpen(t, s, "a", tr.ID)
	mustClose(t, s)
}
