package webhook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// bubble runs f with a false clock, a peer and a sender whose queue is in memory.
func bubble(t *testing.T, o Options, answer func(n int, r *http.Request) (*http.Response, error), f func(t *testing.T, s *Sender, p *peer, told *reports)) {
	synctest.Test(t, func(t *testing.T) {
		p, told := &peer{answer: answer}, &reports{}
		o.Transport, o.Told = p, told.told
		s := Open("", o)
		defer s.Close()
		f(t, s, p, told)
	})
}

func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// TestPausesDouble has every attempt fail and looks at the pauses: 1 s, doubling to 5 min, a quarter more or less, until
// the event is a day old. The network fails, so that nothing is parked.
func TestPausesDouble(t *testing.T) {
	bubble(t, Options{}, func(int, *http.Request) (*http.Response, error) { return nil, errRefused },
		func(t *testing.T, s *Sender, p *peer, told *reports) {
			configure(t, s, far("a"))
			begin := time.Now()
			s.Send(Event{ID: "one", Type: Tripped, Flag: "f"})
			after(25 * time.Hour)
			_, times := p.got()
			want, different := retryMin, false
			for i, at := range times {
				if i == 0 {
					if !at.Equal(begin) {
						t.Errorf("first attempt after %v", at.Sub(begin))
					}
					continue
				}
				pause := at.Sub(times[i-1])
				if pause < want*3/4 || pause > want*5/4+time.Millisecond {
					t.Fatalf("pause %d is %v, want %v a quarter more or less", i, pause, want)
				}
				different = different || pause != want
				want = min(2*want, retryMax)
			}
			if n := len(times); n < 24*12*3/4 || n > 24*12*5/4+10 || !different {
				t.Errorf("%d attempts, jitter %v", n, different)
			}
			if last := times[len(times)-1].Sub(begin); last > 24*time.Hour {
				t.Errorf("attempted after %v", last)
			}
			all := told.get()
			last := all[len(all)-1]
			if len(all) != len(times)+1 || !last.Final || last.Flag != "f" || last.Type != Tripped || last.Target != "a" ||
				last.Err.Error() != fmt.Sprintf("webhook a: given up after 24h0m0s and %d attempts", len(times)) || s.Queued() != 0 {
				t.Errorf("told %d times, last %+v, %d queued", len(all), last, s.Queued())
			}
			for i, r := range all[:len(times)] {
				if r.Attempt != i+1 || r.Final || r.Err == nil {
					t.Errorf("report %d: %+v", i, r)
				}
			}
		})
}

func TestOrderIsKeptWhileThePeerIsGone(t *testing.T) {
	var back atomic.Bool
	bubble(t, Options{}, func(int, *http.Request) (*http.Response, error) {
		if !back.Load() {
			return nil, errRefused
		}
		return reply(200, ""), nil
	}, func(t *testing.T, s *Sender, p *peer, told *reports) {
		configure(t, s, far("a"))
		for _, id := range []string{"1", "2", "3"} {
			s.Send(Event{ID: id, Type: Tripped})
			after(20 * time.Minute) // More than ten attempts.
		}
		tried, _ := p.got()
		for _, id := range tried {
			if id != "1" {
				t.Fatalf("%s was tried before 1 was delivered", id)
			}
		}
		back.Store(true)
		after(7 * time.Minute)
		got, times := p.got()
		wantIDs(t, got[len(tried):], "1", "2", "3")
		if n := len(times); !times[n-1].Equal(times[n-3]) {
			t.Error("pauses between deliveries")
		}
	})
}

// TestRefusedEventLetsOthersThrough has one event refused by a peer that takes all others.
func TestRefusedEventLetsOthersThrough(t *testing.T) {
	var cured atomic.Bool
	bubble(t, Options{}, func(_ int, r *http.Request) (*http.Response, error) {
		if r.Header.Get("webhook-id") == "poison" && !cured.Load() {
			return reply(500, ""), nil
		}
		return reply(200, ""), nil
	}, func(t *testing.T, s *Sender, p *peer, told *reports) {
		configure(t, s, far("a"))
		s.Send(Event{ID: "poison", Type: Tripped})
		s.Send(Event{ID: "second", Type: Tripped})
		s.Send(Event{ID: "third", Type: Tripped})
		after(20 * time.Minute)
		got, times := p.got()
		want := strings.Fields(strings.Repeat("poison ", 10) + "second third")
		wantIDs(t, got[:min(12, len(got))], want...)
		if !times[10].Equal(times[9]) {
			t.Errorf("the second one waited %v after the tenth attempt", times[10].Sub(times[9]))
		}
		s.Send(Event{ID: "late", Type: Tripped})
		synctest.Wait()
		if ids, at := p.got(); ids[len(ids)-1] != "late" || !at[len(at)-1].Equal(time.Now()) {
			t.Errorf("a later event waits: %v", ids)
		}
		n := len(got)
		after(time.Hour)
		if got, _ = p.got(); len(got)-n < 9 || len(got)-n > 18 {
			t.Errorf("%d attempts of the refused event in an hour", len(got)-n)
		}
		cured.Store(true)
		after(7 * time.Minute)
		if s.Queued() != 0 {
			t.Error("the refused event is not delivered when it is taken")
		}
	})
}

// TestLateEventsOfAnIncident has PagerDuty refuse a trip until the reset behind it was tried: the incident is not opened
// after it was closed.
func TestLateEventsOfAnIncident(t *testing.T) {
	var refused atomic.Int64
	bubble(t, Options{}, func(_ int, r *http.Request) (*http.Response, error) {
		if refused.Add(1) <= patience {
			return reply(503, ""), nil
		}
		return reply(202, ""), nil
	}, func(t *testing.T, s *Sender, p *peer, told *reports) {
		pager := far("a")
		pager.Format, pager.RoutingKey = PagerDuty, "key"
		configure(t, s, pager)
		s.Send(Event{ID: "other", Type: Tripped, Flag: "other"})
		s.Send(Event{ID: "reset", Type: Reset, Flag: "other"})
		s.Send(Event{ID: "tripped", Type: Tripped, Flag: "f"})
		after(time.Hour)
		ids, _ := p.got()
		wantIDs(t, ids[patience:], "reset", "tripped")
		if s.Queued() != 0 || !strings.Contains(told.texts(), errLate.Error()) {
			t.Errorf("%d wait; told %s", s.Queued(), told.texts())
		}
	})
}

// TestPeerThatRefusesEverything answers 500 for hours: it is not flooded, and everything arrives in the end.
func TestPeerThatRefusesEverything(t *testing.T) {
	var broken atomic.Bool
	broken.Store(true)
	bubble(t, Options{}, func(int, *http.Request) (*http.Response, error) {
		if broken.Load() {
			return reply(500, ""), nil
		}
		return reply(200, ""), nil
	}, func(t *testing.T, s *Sender, p *peer, told *reports) {
		configure(t, s, far("a"))
		for i := range 20 {
			s.Send(Event{ID: fmt.Sprint(i), Type: Tripped})
		}
		after(10 * time.Hour)
		if ids, _ := p.got(); len(ids) > 10*12*3 {
			t.Errorf("%d requests in ten hours", len(ids))
		}
		if s.Queued() != 20 {
			t.Errorf("%d wait", s.Queued())
		}
		broken.Store(false)
		after(7 * time.Minute)
		if s.Queued() != 0 {
			t.Errorf("%d wait seven minutes after the peer recovered", s.Queued())
		}
	})
}

func TestRetryAfterIsHeeded(t *testing.T) {
	for _, c := range []struct {
		name, value string
		status      int
		want        time.Duration // Until the second attempt, at least; 0: as usual.
	}{
		{"seconds", "120", 429, 2 * time.Minute},
		{"at 503", "120", 503, 2 * time.Minute},
		{"too long", "86400", 429, time.Hour},
		{"far too long", "99999999999999999999999", 429, time.Hour},
		{"negative", "-5", 429, 0},
		{"rubbish", "soon", 429, 0},
		{"past date", "Fri, 31 Dec 1999 23:00:00 GMT", 503, 0},
		{"date", "date", 503, 10 * time.Minute},
		{"far date", "Fri, 31 Dec 2100 23:00:00 GMT", 503, time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, Options{}, func(n int, r *http.Request) (*http.Response, error) {
				if n > 1 {
					return reply(200, ""), nil
				}
				a := reply(c.status, "")
				a.Header.Set("Retry-After", c.value)
				if c.value == "date" {
					a.Header.Set("Retry-After", time.Now().Add(10*time.Minute).UTC().Format(http.TimeFormat))
				}
				return a, nil
			}, func(t *testing.T, s *Sender, p *peer, told *reports) {
				configure(t, s, far("a"))
				s.Send(Event{ID: "x", Type: Tripped})
				after(2 * time.Hour)
				ids, times := p.got()
				if len(ids) != 2 {
					t.Fatalf("%d attempts", len(ids))
				}
				if pause := times[1].Sub(times[0]); pause < c.want || pause > c.want+2*time.Second {
					t.Errorf("tried again after %v, want %v", pause, c.want)
				}
			})
		})
	}
}

// TestSilentPeers never answer, or trickle: each attempt ends with the timeout of the target.
func TestSilentPeers(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(n int, r *http.Request) (*http.Response, error)
		want   string
	}{
		{"silence", func(_ int, r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}, "webhook a: no answer within 3s: context deadline exceeded"},
		{"a byte a minute", func(_ int, r *http.Request) (*http.Response, error) {
			a := reply(500, "")
			a.Body = io.NopCloser(trickle{r.Context()})
			a.ContentLength = -1
			return a, nil
		}, "webhook a: answered 500 Internal Server Error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, Options{}, c.answer, func(t *testing.T, s *Sender, p *peer, told *reports) {
				target := far("a")
				target.Timeout = 3 * time.Second
				configure(t, s, target)
				begin := time.Now()
				s.Send(Event{ID: "x", Type: Tripped})
				after(3 * time.Second)
				all := told.get()
				if len(all) != 1 || all[0].Err.Error() != c.want || told.at[0].Sub(begin) != 3*time.Second {
					t.Fatalf("told %+v", all)
				}
				if c.name == "silence" && !errors.Is(all[0].Err, context.DeadlineExceeded) {
					t.Error("does not wrap context.DeadlineExceeded")
				}
			})
		})
	}
}

// trickle is an answer that brings a byte a minute until the request is broken off.
type trickle struct{ ctx context.Context }

func (r trickle) Read(p []byte) (int, error) {
	select {
	case <-time.After(time.Minute):
		p[0] = '.'
		return 1, nil
	case <-r.ctx.Done():
		return 0, r.ctx.Err()
	}
}

// TestSlowTargetHoldsNoOtherUp has one target hang while another gets what it wants.
func TestSlowTargetHoldsNoOtherUp(t *testing.T) {
	bubble(t, Options{}, func(_ int, r *http.Request) (*http.Response, error) {
		if strings.HasPrefix(r.Host, "slow") {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}
		return reply(200, ""), nil
	}, func(t *testing.T, s *Sender, p *peer, told *reports) {
		configure(t, s, far("slow"), far("quick"))
		for i := range 5 {
			s.Send(Event{ID: fmt.Sprint(i), Type: Tripped})
		}
		synctest.Wait()
		if s.Queued() != 5 {
			t.Errorf("%d wait, want those of the slow one", s.Queued())
		}
	})
}

func TestDroppedAreToldOnceAMinute(t *testing.T) {
	bubble(t, Options{MaxQueued: 10}, func(int, *http.Request) (*http.Response, error) { return nil, errRefused },
		func(t *testing.T, s *Sender, p *peer, told *reports) {
			configure(t, s, far("a"))
			begin := time.Now()
			for range 300 {
				s.Send(Event{Type: Tripped})
				time.Sleep(time.Second)
			}
			after(time.Minute)
			dropped, n := 0, 0
			for i, r := range told.get() {
				if r.Dropped > 0 {
					n++
					dropped += r.Dropped
					if !r.Final || r.Target != "a" || !strings.Contains(r.Err.Error(), "events dropped, the oldest first: more than 10 events or 8388608 bytes wait") {
						t.Errorf("told %+v", r)
					}
					if n == 1 && told.at[i].Sub(begin) > 11*time.Second {
						t.Errorf("first told after %v", told.at[i].Sub(begin))
					}
				}
			}
			if dropped != 290 || n < 5 || n > 6 || s.Queued() != 10 {
				t.Errorf("%d dropped, told %d times, %d wait", dropped, n, s.Queued())
			}
		})
}

// TestBytesAreBounded sends large events: the oldest go, one at a time.
func TestBytesAreBounded(t *testing.T) {
	bubble(t, Options{MaxBytes: 100_000}, func(int, *http.Request) (*http.Response, error) { return nil, errRefused },
		func(t *testing.T, s *Sender, p *peer, told *reports) {
			data := []byte(`"` + strings.Repeat("x", 20_000) + `"`)
			for range 50 {
				s.Send(Event{Type: Tripped, Data: data})
			}
			configure(t, s, far("a"))
			for range 50 {
				s.Send(Event{Type: Tripped, Data: data})
				s.mu.Lock()
				bytes, sum := s.queue.bytes, int64(0)
				for _, it := range s.queue.items {
					sum += it.size()
				}
				s.mu.Unlock()
				if bytes > 100_000 || bytes != sum {
					t.Fatalf("%d bytes counted, %d there", bytes, sum)
				}
			}
			if s.Queued() != 4 {
				t.Errorf("%d wait, want 4", s.Queued())
			}
		})
}

// TestTargetsComeAndGo configures again and again: what waits for a target that is gone waits for it to come back, or to
// be too old.
func TestTargetsComeAndGo(t *testing.T) {
	var up sync.Map
	bubble(t, Options{}, func(_ int, r *http.Request) (*http.Response, error) {
		if _, ok := up.Load(strings.TrimSuffix(r.Host, ".invalid")); ok {
			return reply(200, ""), nil
		}
		return nil, errRefused
	}, func(t *testing.T, s *Sender, p *peer, told *reports) {
		configure(t, s, far("stays"), far("returns"), far("goes"))
		s.Send(Event{ID: "1", Type: Tripped})
		synctest.Wait()
		configure(t, s, far("stays"))
		s.Send(Event{ID: "2", Type: Tripped}) // For the one that stays.
		after(time.Hour)
		if s.Queued() != 4 {
			t.Errorf("%d wait, want 2 and 1 and 1", s.Queued())
		}
		up.Store("stays", nil)
		up.Store("returns", nil)
		configure(t, s, far("stays"), far("returns"))
		synctest.Wait()
		if s.Queued() != 3 {
			t.Errorf("%d wait: the one that returns gets what waited at once, the other in its pause", s.Queued())
		}
		moved := far("stays")
		moved.URL += "/moved" // A change has it tried at once.
		configure(t, s, moved, far("returns"))
		synctest.Wait()
		if s.Queued() != 1 {
			t.Errorf("%d wait", s.Queued())
		}
		after(24 * time.Hour)
		if s.Queued() != 0 {
			t.Error("what waits for a target that is gone does not expire")
		}
		last := told.get()[len(told.get())-1]
		if last.Target != "goes" || !last.Final || !strings.HasSuffix(last.Err.Error(), "given up after 24h0m0s and 1 attempts") {
			t.Errorf("told %+v", last)
		}
	})
}

// TestOneRequestAtATime removes a target and has it back while its request hangs.
func TestOneRequestAtATime(t *testing.T) {
	var under, most atomic.Int32
	bubble(t, Options{}, func(_ int, r *http.Request) (*http.Response, error) {
		if n := under.Add(1); n > most.Load() {
			most.Store(n)
		}
		time.Sleep(5 * time.Second)
		under.Add(-1)
		return reply(200, ""), nil
	}, func(t *testing.T, s *Sender, p *peer, told *reports) {
		for range 3 {
			configure(t, s, far("a"))
			s.Send(Event{Type: Tripped})
			synctest.Wait()
			configure(t, s)
			time.Sleep(time.Second)
			configure(t, s, far("a"))
			s.Send(Event{Type: Tripped})
			synctest.Wait()
		}
		after(time.Hour)
		if got, _ := p.got(); most.Load() != 1 || len(got) != 6 || s.Queued() != 0 {
			t.Errorf("%d requests at a time, %d in all, %d wait", most.Load(), len(got), s.Queued())
		}
	})
}

func TestFormatChangeKeepsBodiesApart(t *testing.T) {
	bubble(t, Options{}, func(_ int, r *http.Request) (*http.Response, error) {
		if strings.HasPrefix(r.Header.Get("Content-Type"), "application/cloudevents") {
			return reply(200, ""), nil
		}
		return nil, errRefused
	}, func(t *testing.T, s *Sender, p *peer, told *reports) {
		target := far("a")
		target.Format = Slack
		configure(t, s, target)
		s.Send(Event{ID: "slack", Type: Tripped})
		synctest.Wait()
		configure(t, s, far("a"))
		s.Send(Event{ID: "cloud", Type: Tripped})
		after(time.Hour)
		got, _ := p.got()
		wantIDs(t, got, "slack", "cloud")
		if s.Queued() != 1 {
			t.Errorf("%d wait", s.Queued())
		}
	})
}

// TestDrainInMemory waits for deliveries where there is no disk, and tells how many are missing.
func TestDrainInMemory(t *testing.T) {
	var up atomic.Bool
	bubble(t, Options{}, func(int, *http.Request) (*http.Response, error) {
		if up.Load() {
			return reply(200, ""), nil
		}
		return nil, errRefused
	}, func(t *testing.T, s *Sender, p *peer, told *reports) {
		configure(t, s, far("a"))
		s.Send(Event{Type: Tripped})
		s.Send(Event{Type: Reset})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := s.Drain(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(err.Error(), "draining webhooks: 2 events are neither delivered nor on disk") {
			t.Errorf("got %v", err)
		}
		up.Store(true)
		if err := s.Drain(t.Context()); err != nil || s.Queued() != 0 {
			t.Errorf("got %v, %d wait", err, s.Queued())
		}
	})
}

// TestCloseWaitsForRequests closes while requests are under way: a quick one is waited for, a slow one is broken off.
func TestCloseWaitsForRequests(t *testing.T) {
	for _, slow := range []bool{false, true} {
		bubble(t, Options{}, func(_ int, r *http.Request) (*http.Response, error) {
			d := 2 * time.Second
			if slow {
				d = time.Hour
			}
			select {
			case <-time.After(d):
				return reply(200, ""), nil
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
		}, func(t *testing.T, s *Sender, p *peer, told *reports) {
			target := far("a")
			target.Timeout = time.Minute
			configure(t, s, target)
			s.Send(Event{ID: "1", Type: Tripped})
			s.Send(Event{ID: "2", Type: Tripped})
			synctest.Wait()
			begin := time.Now()
			err := s.Close()
			all := told.get()
			last := all[len(all)-1]
			switch took := time.Since(begin); {
			case !slow && (took != 2*time.Second || last.Dropped != 1 || err.Error() != "closing webhooks: 1 events are neither delivered nor on disk"):
				t.Errorf("closed after %v, %v, told %+v", took, err, last)
			case slow && (took != 5*time.Second || last.Dropped != 2 || !errors.Is(all[0].Err, ErrClosed)):
				t.Errorf("closed after %v, %v, told %+v", took, err, all)
			}
			if !errors.Is(last.Err, ErrClosed) || !last.Final || last.Target != "a" {
				t.Errorf("told %+v", last)
			}
			s.Send(Event{Type: Tripped, Flag: "late"})
			if all = told.get(); all[len(all)-1].Flag != "late" || !errors.Is(all[len(all)-1].Err, ErrClosed) {
				t.Errorf("told %+v of an event after Close", all[len(all)-1])
			}
			if err := s.Configure(nil); !errors.Is(err, ErrClosed) {
				t.Errorf("configure after Close: %v", err)
			}
			if got, _ := p.got(); len(got) != 1 {
				t.Errorf("%d requests", len(got))
			}
		})
	}
}
