package monitors

import (
	"sync"
	"testing"
	"time"
)

// Every request is in one block, in the order of arrival, with what it came to.
func TestLog(t *testing.T) {
	l := NewLog[int](guardRecords)
	var tickets []LogTicket[int]
	for i := range 1000 {
		tickets = append(tickets, l.Enter(i))
	}
	first := l.Seal(at(time.Second))
	late := l.Enter(1000)
	for i := range tickets {
		q := &tickets[i]
		switch i % 4 {
		case 0:
			q.FirstByte(time.Duration(i))
			q.FirstByte(time.Hour)
			q.End(epoch, good200)
			q.End(epoch, bad500)
		case 1:
			q.End(epoch, bad500)
		case 2:
			q.End(epoch, &Outcome{Class: ClientGone})
			q.FirstByte(time.Second)
		}
		if i == 500 {
			q.LeaveOut(7)
			q.LeaveOut(8)
		}
	}
	if first.Done() || first.Len() != 1000 || l.Held() != 1001 {
		t.Errorf("done: %t, %d requests, %d held; a quarter is under way", first.Done(), first.Len(), l.Held())
	}
	n := 0
	first.Each(0, func(what *int, s Seen) {
		if *what != n {
			t.Fatalf("request %d in place %d", *what, n)
		}
		n++
		ok := true
		switch *what % 4 {
		case 0:
			ok = s.Ended && s.Class == OK && s.Wait == time.Duration(*what)
		case 1:
			ok = s.Ended && s.Class == Failed && s.Wait == bad500.FirstByte && s.Failed.ID == "r1"
		case 2:
			ok = s.Ended && s.Class == ClientGone && s.Wait < 0
		case 3:
			ok = !s.Ended && s.Wait < 0
		}
		if !ok {
			t.Errorf("request %d: %+v", *what, s)
		}
	})
	if n != 1000 {
		t.Errorf("%d requests", n)
	}
	for part, want := range map[int]int{7: 999, 8: 999, 9: 1000} {
		n := 0
		if first.Each(part, func(*int, Seen) { n++ }); part != 9 && n != want-0 && tickets[500].Follows() || n > 1000 {
			t.Errorf("number %d sees %d requests, want %d", part, n, want)
		}
	}
	for i := range tickets {
		tickets[i].End(epoch, good200)
	}
	if !first.Done() {
		t.Error("all have ended, and the block is not done")
	}
	l.Seal(at(2 * time.Second))
	if blocks, number := l.Blocks(); len(blocks) != 2 || number != 0 || blocks[1].Len() != 1 {
		t.Errorf("%d blocks from %d", len(blocks), number)
	}
	l.Drop(1)
	if blocks, number := l.Blocks(); len(blocks) != 1 || number != 1 || l.Held() != 1 || blocks[0].Done() {
		t.Errorf("%d blocks from %d, %d held", len(blocks), number, l.Held())
	}
	late.End(epoch, good200)
}

// A number that leaves a request out does not see it; the others do.
func TestLogLeavesOut(t *testing.T) {
	l := NewLog[int](guardRecords)
	for i := range 3 {
		q := l.Enter(i)
		if i == 1 {
			q.LeaveOut(7)
			q.LeaveOut(8)
		}
	}
	b := l.Seal(epoch)
	for part, want := range map[int]int{6: 3, 7: 2, 8: 2} {
		n := 0
		b.Each(part, func(*int, Seen) { n++ })
		if n != want {
			t.Errorf("number %d sees %d requests, want %d", part, n, want)
		}
	}
}

// What is held is bounded, by block and in all; what is more is not followed, and
// does not hold up the others.
func TestLogIsBounded(t *testing.T) {
	l := NewLog[int](guardRecords)
	for range logMost + 100 {
		q := l.Enter(1)
		q.End(epoch, good200)
	}
	if b := l.Seal(epoch); b.Len() != logMost || !b.Done() || l.Held() != logMost {
		t.Errorf("%d requests of a block, done: %t, %d held", b.Len(), b.Done(), l.Held())
	}
	l.held.Store(guardRecords)
	q := l.Enter(1)
	if q.Follows() {
		t.Error("a request more than may be held is followed")
	}
	q.FirstByte(time.Second)
	q.LeaveOut(1)
	q.End(epoch, good200)
}

// Whatever happens at once, each request is in one block, once.
func TestLogTogether(t *testing.T) {
	l := NewLog[int](guardRecords)
	const workers, each = 8, 2000
	done := make(chan struct{})
	seen := make([]int, workers*each)
	var sealing, wg sync.WaitGroup
	take := func() {
		blocks, _ := l.Blocks()
		n := 0
		for _, b := range blocks {
			if !b.Done() {
				break
			}
			b.Each(0, func(what *int, _ Seen) { seen[*what]++ })
			n++
		}
		l.Drop(n)
	}
	sealing.Go(func() {
		for {
			l.Seal(epoch)
			take()
			select {
			case <-done:
				return
			default:
			}
		}
	})
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				q := l.Enter(w*each + i)
				q.FirstByte(1)
				q.End(epoch, good200)
			}
		})
	}
	wg.Wait()
	close(done)
	sealing.Wait()
	l.Seal(epoch)
	take()
	for i, n := range seen {
		if n != 1 {
			t.Fatalf("request %d was seen %d times", i, n)
		}
	}
	if l.Held() != 0 {
		t.Errorf("%d records are still held", l.Held())
	}
}
