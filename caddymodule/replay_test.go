package caddymodule

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
)

// A transport that was left behind goes on reading; the second reader misses
// nothing of what it takes.
func TestReplayLeavesNothingToAReaderThatWasLeftBehind(t *testing.T) {
	from, to := io.Pipe()
	b := newReplayBody(from, 8)
	first := b.reader()
	go func() { _, _ = io.WriteString(to, "one ") }()
	if p := make([]byte, 100); true {
		if n, err := first.Read(p); string(p[:n]) != "one " || err != nil {
			t.Fatalf("%q, %v", p[:n], err)
		}
	}
	behind := make(chan error)
	go func() {
		_, err := first.Read(make([]byte, 100))
		behind <- err
	}()
	for reading := false; !reading; {
		b.mu.Lock()
		reading = b.reading
		b.mu.Unlock()
	}
	second := b.reader()
	if second == nil {
		t.Fatal("no second reader of a body that is kept whole")
	}
	go func() {
		_, _ = io.WriteString(to, "two and more than the limit ") // taken by the first
		_, _ = io.WriteString(to, "three")
		to.Close()
	}()
	all, err := io.ReadAll(second)
	if string(all) != "one two and more than the limit three" || err != nil {
		t.Errorf("%q, %v", all, err)
	}
	if err := <-behind; !errors.Is(err, http.ErrBodyReadAfterClose) {
		t.Errorf("the first reader got %v", err)
	}
	if _, err := first.Read(make([]byte, 1)); !errors.Is(err, http.ErrBodyReadAfterClose) {
		t.Errorf("the first reader got %v", err)
	}
}

func TestReplayLimit(t *testing.T) {
	for size, again := range map[int]bool{0: true, 7: true, 8: true, 9: false, 1000: false} {
		b := newReplayBody(iotest.OneByteReader(strings.NewReader(strings.Repeat("x", size))), 8)
		if all, err := io.ReadAll(b.reader()); len(all) != size || err != nil {
			t.Fatalf("%d bytes: %d, %v", size, len(all), err)
		}
		second := b.reader()
		if (second != nil) != again {
			t.Errorf("%d bytes: a second reader: %t, want %t", size, second != nil, again)
		}
		if second != nil {
			if all, err := io.ReadAll(second); len(all) != size || err != nil {
				t.Errorf("%d bytes again: %d, %v", size, len(all), err)
			}
		}
	}
}

// What ends a body ends it for both.
func TestReplayPassesErrorsOn(t *testing.T) {
	broken := errors.New("broken")
	b := newReplayBody(io.MultiReader(strings.NewReader("half"), iotest.ErrReader(broken)), 100)
	for range 2 {
		if all, err := io.ReadAll(b.reader()); string(all) != "half" || !errors.Is(err, broken) {
			t.Errorf("%q, %v", all, err)
		}
	}
}

// Whenever the first reader is left, the second reads all of it.
func FuzzReplay(f *testing.F) {
	f.Add(uint64(1), 10, 3)
	f.Add(uint64(2), 70000, 65536)
	f.Fuzz(func(t *testing.T, seed uint64, size, leave int) {
		size, leave = min(max(size, 0), 1<<17), min(max(leave, 0), 1<<17)
		random := rand.New(rand.NewPCG(seed, 1))
		body := make([]byte, size)
		for i := range body {
			body[i] = byte(random.Uint32())
		}
		b := newReplayBody(iotest.HalfReader(bytes.NewReader(body)), 1<<16)
		first := b.reader()
		if _, err := io.CopyN(io.Discard, first, int64(leave)); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		var behind sync.WaitGroup
		behind.Go(func() { _, _ = io.Copy(io.Discard, io.LimitReader(first, 1000)) })
		second := b.reader()
		if second != nil {
			got, err := io.ReadAll(second)
			if err != nil || !bytes.Equal(got, body) {
				t.Fatalf("%d of %d bytes, %v", len(got), size, err)
			}
		} else if size <= 1<<16 {
			t.Fatalf("%d bytes were not kept", size)
		}
		behind.Wait()
	})
}
