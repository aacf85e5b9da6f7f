package sources

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestHTTPWatch(t *testing.T) {
	inPortal(t, func(p *portal) {
		p.sayVersion("one")
		p.watch()
		p.told("one") // At once.
		p.pass(5 * time.Minute)
		p.told()
		if n := p.count(); n < 10 || n > 12 {
			p.Errorf("asked %d times in 5 minutes", n)
		}
		if n := p.open.Load(); n != 1 {
			p.Errorf("%d connections are open", n)
		}
		p.sayVersion("two")
		p.sayVersion("three") // Before the next question.
		p.pass(33 * time.Second)
		p.told("three")
	})
}

// TestHTTPWatchAfterLoad: nothing is asked again before a Poll is over, nothing is told again, and nothing is missed.
func TestHTTPWatchAfterLoad(t *testing.T) {
	inPortal(t, func(p *portal) {
		p.sayVersion("one")
		p.load("one")
		if n := p.open.Load(); n != 0 {
			p.Errorf("%d connections are open", n)
		}
		p.pass(10 * time.Second)
		p.sayVersion("two")
		p.watch()
		p.pass(16 * time.Second)
		p.told()
		if n := p.count(); n != 1 {
			p.Errorf("asked %d times", n)
		}
		p.pass(7 * time.Second) // 33 s after the load.
		p.told("two")
		p.stop()

		p.sayVersion("three")
		p.pass(time.Hour)
		p.watch() // The load is too long ago.
		p.told("three")
		p.stop()
		p.watch()
		p.told() // As before.
	})
}

// TestHTTPLoadBesideWatch: a Load may be called at any time, from changed too, and takes its turn.
func TestHTTPLoadBesideWatch(t *testing.T) {
	inPortal(t, func(p *portal) {
		p.sayVersion("one")
		ctx, cancel := context.WithCancel(p.Context())
		n := 0
		p.Watch(ctx, func(d Document, err error) {
			if err != nil || string(d.Body) != "one" {
				p.Errorf("told %q, %v", d.Body, err)
			}
			p.load("one")
			n++
			cancel()
		})
		if n != 1 {
			p.Errorf("told %d times", n)
		}

		slow := make(chan struct{})
		p.say(func(w http.ResponseWriter, r *http.Request) {
			<-slow
			io.WriteString(w, "two")
		})
		p.pass(time.Hour)
		p.watch()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { p.load("two") })
		}
		synctest.Wait()
		asked := len(p.questions())
		close(slow)
		wg.Wait()
		synctest.Wait()
		if got := p.count() - asked; got != 3 {
			p.Errorf("%d more questions, want one for each load", got)
		}
		p.told("two")
		p.pass(time.Hour)
		p.told()
	})
}

// TestHTTPLoadWhileTelling has a Load that brings a newer version while an older one is being told: the newer one is the
// last.
func TestHTTPLoadWhileTelling(t *testing.T) {
	inPortal(t, func(p *portal) {
		p.sayVersion("one")
		telling, goOn := make(chan struct{}), make(chan struct{})
		ctx, cancel := context.WithCancel(p.Context())
		var told []string
		done := make(chan struct{})
		go func() {
			defer close(done)
			p.Watch(ctx, func(d Document, err error) {
				told = append(told, string(d.Body))
				if len(told) == 1 {
					close(telling)
					<-goOn
				} else {
					cancel()
				}
			})
		}()
		<-telling
		p.sayVersion("two")
		p.load("two")
		close(goOn)
		<-done
		if fmt.Sprint(told) != "[one two]" {
			p.Errorf("told %v", told)
		}
	})
}
