package webhook

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"github.com/seed-6adbc061/caddy-feature-flags/internal/fsys"
)

// TestQueueOutlivesTheSender closes with a peer that is gone and opens again with one that is back.
func TestQueueOutlivesTheSender(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "er", "webhooks.db")
	r := listen(t, status(503))
	target := Target{URL: r.URL + "/s3cretpath", Name: "a", Secret: "hush-hush", Format: PagerDuty, RoutingKey: "R0UTE"}
	s := open(t, path, Options{}, target)
	for i := range 20 {
		s.Send(Event{ID: fmt.Sprint("e", i), Type: Tripped, Flag: "f"})
	}
	drain(t, s)
	if err := s.Health(); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprint("e", i))
	}
	wantIDs(t, inFile(t, path), want...)
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	for _, secret := range []string{"s3cretpath", "hush-hush", "R0UTE"} {
		if bytes.Contains(read(t, path), []byte(secret)) {
			t.Errorf("%s is in the file", secret)
		}
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}

	tried := len(r.got())
	r.mu.Lock()
	r.answer = nil
	r.mu.Unlock()
	again := open(t, path, Options{}, target)
	again.Send(Event{ID: "new", Type: Tripped, Flag: "f"})
	eventually(t, "all delivered", func() bool { return again.Queued() == 0 })
	wantIDs(t, r.ids()[tried:], append(want, "new")...)
	mustClose(t, again)
	wantIDs(t, inFile(t, path))
	if st, _ := os.Stat(path); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v stays", st.Mode())
	}
	if names, _ := filepath.Glob(filepath.Dir(path) + "/*"); len(names) != 1 {
		t.Errorf("files %q", names)
	}
}

// TestSecondSenderWorksInMemoryUntilTheFileIsFree has two senders of one file, as across a reload: locks of one process
// are those of two.
func TestSecondSenderWorksInMemoryUntilTheFileIsFree(t *testing.T) {
	t.Parallel()
	path := queueFile(t)
	r := listen(t, status(503))
	target := Target{URL: r.URL, Name: "a"}
	first := open(t, path, Options{}, target)
	first.Send(Event{ID: "first", Type: Tripped})
	drain(t, first)
	var told reports
	second := open(t, path, Options{Told: told.told}, target)
	if err := second.Health(); !errors.Is(err, ErrLocked) || !strings.HasPrefix(err.Error(), fmt.Sprintf("webhook queue %q: opening: in use by another process", path)) {
		t.Errorf("health %v", err)
	}
	second.Send(Event{ID: "second", Type: Tripped})
	eventually(t, "tried", func() bool { return slices.Contains(r.ids(), "second") })
	mustClose(t, first)
	eventually(t, "taken over", func() bool { return second.Health() == nil && second.Queued() == 2 })
	drain(t, second)
	mustClose(t, second)
	wantIDs(t, inFile(t, path), "first", "second")
	n := 0
	for _, report := range told.get() {
		if errors.Is(report.Err, ErrLocked) {
			n++
		}
	}
	if n != 1 {
		t.Errorf("told %d times that the file is locked", n)
	}
}

// TestUnusablePaths work in memory, tell, and are healed.
func TestUnusablePaths(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		spoil, fix func(path string) error
		want       string
	}{
		{"a directory", func(p string) error { return os.MkdirAll(p, 0o700) }, os.Remove, "is a d---------, want a regular file"},
		{"below a file", func(p string) error { return os.WriteFile(filepath.Dir(p), nil, 0o600) }, func(p string) error { return os.Remove(filepath.Dir(p)) }, "not a directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "dir", "webhooks.db")
			if err := c.spoil(path); err != nil {
				t.Fatal(err)
			}
			r := listen(t, status(503))
			s := open(t, path, Options{}, Target{URL: r.URL, Name: "a"})
			if err := s.Health(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("health %v", err)
			}
			s.Send(Event{ID: "x", Type: Tripped})
			eventually(t, "tried", func() bool { return len(r.got()) > 0 })
			if err := c.fix(path); err != nil {
				t.Fatal(err)
			}
			drain(t, s)
			mustClose(t, s)
			wantIDs(t, inFile(t, path), "x")
		})
	}
}

// TestFileThatIsTakenAway removes, renames and shortens the file while it is in use.
func TestFileThatIsTakenAway(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		spoil func(path string) error
		aside int
	}{
		{"removed", os.Remove, 0},
		{"renamed", func(p string) error { return os.Rename(p, p+".old") }, 0},
		{"replaced", func(p string) error {
			if err := os.WriteFile(p+".x", []byte("something else"), 0o600); err != nil {
				return err
			}
			return os.Rename(p+".x", p)
		}, 1},
		{"cut", func(p string) error { return os.Truncate(p, 100) }, 1},
		{"emptied", func(p string) error { return os.Truncate(p, 0) }, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := queueFile(t)
			r := listen(t, status(503))
			var told reports
			s := open(t, path, Options{Told: told.told}, Target{URL: r.URL, Name: "a"})
			s.Send(Event{ID: "one", Type: Tripped})
			drain(t, s)
			if err := c.spoil(path); err != nil {
				t.Fatal(err)
			}
			s.Send(Event{ID: "two", Type: Tripped})
			drain(t, s)
			eventually(t, "healthy", func() bool { return s.Health() == nil })
			mustClose(t, s)
			wantIDs(t, inFile(t, path), "one", "two")
			if names, _ := filepath.Glob(path + ".damaged-*"); len(names) != c.aside {
				t.Errorf("set aside: %q, want %d\n%s", names, c.aside, told.texts())
			}
		})
	}
}

// stuck is a sender whose writer hangs, in telling that the file was damaged, until release is called. It must be called
// in a bubble.
func stuck(path string, o Options) (s *Sender, told *reports, release func()) {
	told, gate := &reports{}, make(chan struct{})
	o.Told = func(r Report) {
		told.told(r)
		if r.Target == "" {
			<-gate
		}
	}
	return Open(path, o), told, func() { close(gate) }
}

// TestNobodyWaitsForTheDisk has the disk hang: sending, delivering and closing go on.
func TestNobodyWaitsForTheDisk(t *testing.T) {
	path := queueFile(t)
	write(t, path, []byte("rubbish"))
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		p := &peer{answer: func(n int, r *http.Request) (*http.Response, error) {
			if r.Header.Get("webhook-id") == "taken" {
				return reply(200, ""), nil
			}
			return nil, errRefused
		}}
		s, _, release := stuck(path, Options{Transport: p})
		if took := time.Since(begin); took != openTimeout {
			t.Errorf("open took %v", took)
		}
		if err := s.Health(); err == nil || !strings.Contains(err.Error(), "the disk has not answered yet") {
			t.Errorf("health %v", err)
		}
		configure(t, s, far("a"))
		begin = time.Now()
		s.Send(Event{ID: "taken", Type: Tripped})
		s.Send(Event{ID: "waits", Type: Tripped})
		synctest.Wait()
		if got, _ := p.got(); len(got) != 2 || s.Queued() != 1 || !time.Now().Equal(begin) {
			t.Errorf("tried %q, %d wait, after %v", got, s.Queued(), time.Since(begin))
		}
		err := s.Close()
		if took := time.Since(begin); took > 11*time.Second || errorText(err) != "closing webhooks: the disk has not answered for 5s, 1 events wait" {
			t.Errorf("close: %v after %v", err, took)
		}
		release()
		if err := s.Close(); err != nil {
			t.Errorf("close again: %v", err)
		}
	})
	wantIDs(t, inFile(t, path), "waits")
}

// TestManyEventsShareATransaction has 500 events come while the disk is busy, and wants them written at once.
func TestManyEventsShareATransaction(t *testing.T) {
	transactions := func(n int) int {
		path := queueFile(t)
		write(t, path, []byte("rubbish"))
		synctest.Test(t, func(t *testing.T) {
			s, _, release := stuck(path, Options{Transport: &peer{answer: func(int, *http.Request) (*http.Response, error) { return nil, errRefused }}})
			configure(t, s, far("a"))
			for range n {
				s.Send(Event{Type: Tripped})
			}
			release()
			drain(t, s)
			mustClose(t, s)
		})
		if got := len(inFile(t, path)); got != n {
			t.Errorf("%d events in the file, want %d", got, n)
		}
		data := read(t, path)
		if _, err := surveyFile(bytes.NewReader(data), int64(len(data))); err != nil {
			t.Fatal(err)
		}
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		tx, err := db.Begin(false)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback() }()
		return tx.ID()
	}
	if one, many := transactions(1), transactions(500); one != many {
		t.Errorf("%d transactions for one event, %d for 500", one, many)
	}
}

// filled is a queue file with some events, small ones and large ones.
func filled(t testing.TB, path string, n int) (ids []string) {
	t.Helper()
	s := Open(path, Options{Transport: &peer{answer: func(int, *http.Request) (*http.Response, error) { return nil, errRefused }}})
	configure(t, s, far("a"))
	for i := range n {
		ids = append(ids, fmt.Sprintf("evt_%03d", i))
		s.Send(Event{ID: ids[i], Type: Tripped, Flag: "f", Data: []byte(`"` + strings.Repeat("x", i%4*3000) + `"`)})
		if i%8 == 0 {
			drain(t, s) // So that there are several transactions.
		}
	}
	drain(t, s)
	mustClose(t, s)
	return ids
}

// TestDamagedFiles changes a queue file in every way at every place: nothing panics or hangs, every file that is not sound
// is set aside as it was, no event is invented, and the queue goes on.
func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	sound := queueFile(t)
	ids := filled(t, sound, 20)
	whole := read(t, sound)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	dir := t.TempDir()
	all, damaged, opened := 0, 0, 0
	check := func(name string, data []byte, stride int) {
		t.Helper()
		s, fault := surveyFile(bytes.NewReader(data), int64(len(data)))
		for _, r := range s.records {
			if r.item != nil && (!slices.Contains(ids, r.item.id) || r.item.target != "a") {
				t.Fatalf("%s: invented %+v", name, r.item)
			}
		}
		if fault == nil && len(s.records) != len(ids) {
			t.Errorf("%s: taken for sound with %d events of %d", name, len(s.records), len(ids))
		}
		if fault != nil {
			damaged++
			if !errors.Is(fault, errDamaged) {
				t.Errorf("%s: %v", name, fault)
			}
		}
		if all++; all%stride == 0 { // Opening takes the disk a while.
			opened++
			wantOpened(t, filepath.Join(dir, fmt.Sprint(all)), name, data, fault != nil)
		}
	}
	data := bytes.Clone(whole)
	// Every byte of headers, metas, elements and keys; every 97th of the rest.
	for i := range data {
		if i%os.Getpagesize() > 100 && i%97 != 0 {
			continue
		}
		for _, bit := range []byte{0x01, 0x80} {
			data[i] ^= bit
			check(fmt.Sprintf("byte %d with %#x", i, bit), data, 701)
			data[i] = whole[i]
		}
	}
	for size := 1; size < len(whole); size += 4001 {
		check(fmt.Sprintf("cut to %d", size), whole[:size], 9)
	}
	for at := 0; at+4096 <= len(whole); at += 4096 {
		clear(data[at : at+4096])
		check(fmt.Sprintf("page at %d is zero", at), data, 9)
		copy(data[at:], whole[len(whole)-4096-at:][:4096])
		check(fmt.Sprintf("page at %d is another", at), data, 9)
		copy(data[at:at+4096], whole[at:])
	}
	check("text", []byte(strings.Repeat("not a queue\n", 5000)), 1)
	if damaged < all/4 || damaged == all || opened < 20 {
		t.Errorf("%d of %d files are damaged, %d opened", damaged, all, opened)
	}
	t.Logf("%d of %d files are damaged, %d opened", damaged, all, opened)
}

// wantOpened opens a file, and wants it set aside as it was if it is damaged; then it can be written.
func wantOpened(t *testing.T, path, name string, data []byte, damaged bool) {
	t.Helper()
	write(t, path, data)
	f, _, aside, err := openFile(path, Options{}.withDefaults().maxFile(), nil, time.Now())
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	defer f.close(nil)
	if (aside != "") != damaged {
		t.Errorf("%s: set aside as %q", name, aside)
	}
	if aside != "" && !bytes.Equal(read(t, aside), data) {
		t.Errorf("%s: what is set aside is not what was there", name)
	}
	if _, err := f.commit(change{puts: []*item{sampleItem()}}); err != nil {
		t.Errorf("%s: %v", name, err)
	}
}

// TestDamageIsTold opens a queue one of whose records is damaged.
func TestDamageIsTold(t *testing.T) {
	path := queueFile(t)
	filled(t, path, 4)
	data := read(t, path)
	i := bytes.LastIndex(data, []byte("evt_002"))
	data[i+6] = '9'
	write(t, path, data)
	r := listen(t, nil)
	var told reports
	s := open(t, path, Options{Told: told.told}, Target{URL: r.URL, Name: "a"})
	eventually(t, "the rest delivered", func() bool { return len(r.got()) == 3 && s.Queued() == 0 })
	wantIDs(t, r.ids(), "evt_000", "evt_001", "evt_003")
	first := told.get()[0]
	names, _ := filepath.Glob(path + ".damaged-*")
	if len(names) != 1 || first.Target != "" || first.Err.Error() !=
		fmt.Sprintf("webhook queue %q: was damaged, and is kept as %q: 3 events could be read", path, names[0]) {
		t.Errorf("told %+v, set aside %q", first, names)
	}
}

func TestAsideNamesAreNotUsedTwice(t *testing.T) {
	path := queueFile(t)
	for range 3 {
		write(t, path, []byte("x"))
		if _, err := fsys.MoveAside(path, when, os.Rename); err != nil {
			t.Fatal(err)
		}
	}
	for _, end := range []string{"", "-2", "-3"} {
		if _, err := os.Stat(path + ".damaged-20260304T050607Z" + end); err != nil {
			t.Error(err)
		}
	}
}

// TestFileStaysSmall keeps the queue full, of events of all sizes, while it is written over and over.
func TestFileStaysSmall(t *testing.T) {
	t.Parallel()
	path := queueFile(t)
	o := Options{MaxBytes: 1 << 20}.withDefaults()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	f, _, _, err := openFile(path, o.maxFile(), nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	defer f.close(nil)
	q := newQueue(o.MaxQueued, o.MaxBytes)
	for i := range 300 {
		for j := range 5 {
			it := sampleItem()
			it.id, it.queued = fmt.Sprint(i, "-", j), when.Add(time.Duration(i*5+j))
			it.body = make([]byte, 1+(i*7919+j*104729)%MaxBody)
			q.add(it)
		}
		c := q.pending()
		keys, err := f.commit(c)
		if err != nil {
			t.Fatal(err)
		}
		q.confirm(c, keys)
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st.Size() > 6*o.MaxBytes {
		t.Errorf("%d bytes for a queue of %d", st.Size(), o.MaxBytes)
	}
	t.Logf("%d bytes", st.Size())
}

// TestRecordsOfALaterVersionStay writes a record that this version does not know.
func TestRecordsOfALaterVersionStay(t *testing.T) {
	path := queueFile(t)
	filled(t, path, 3)
	data := read(t, path)
	// The record of evt_001, from its version on: it begins six bytes before its head.
	i := bytes.LastIndex(data, []byte(`"evt_001"`))
	i = bytes.LastIndex(data[:i], []byte(`{"target"`)) - 6
	if data[i] != recordVersion {
		t.Fatalf("no record at %d", i)
	}
	data[i] = 2
	write(t, path, data)
	r := listen(t, nil)
	s := open(t, path, Options{}, Target{URL: r.URL, Name: "a"})
	eventually(t, "the others delivered", func() bool { return s.Queued() == 0 })
	wantIDs(t, r.ids(), "evt_000", "evt_002")
	mustClose(t, s)
	if !bytes.Contains(read(t, path), data[i:i+60]) {
		t.Error("the record is gone")
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
