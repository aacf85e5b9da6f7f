package sources

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	in := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	for _, c := range []struct {
		name, text, date string
		want             time.Duration
	}{
		{"none", "", "", 0},
		{"at once", "0", "", 0},
		{"seconds", "120", "", 2 * time.Minute},
		{"seconds with room", " 120\t", "", 2 * time.Minute},
		{"too many seconds", "601", "", 10 * time.Minute},
		{"seconds without end", strings.Repeat("9", 1000), "", 10 * time.Minute},
		{"negative", "-5", "", 0},
		{"plus", "+5", "", 0},
		{"fraction", "1.5", "", 0},
		{"words", "soon", "", 0},
		{"other digits", "٣", "", 0},
		{"date", in(time.Minute), "", time.Minute},
		{"date by the server's clock", in(time.Hour + time.Minute), in(time.Hour), time.Minute},
		{"date by no clock", in(time.Minute), "noon", time.Minute},
		{"past", in(-time.Minute), "", 0},
		{"far", in(24 * time.Hour), "", 10 * time.Minute},
		{"RFC 850", now.Add(time.Minute).Format("Monday, 02-Jan-06 15:04:05 GMT"), "", time.Minute},
		{"asctime", now.Add(time.Minute).Format(time.ANSIC), "", time.Minute},
		{"seconds, whatever the date", "5", in(time.Hour), 5 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := retryAfter(http.Header{"Retry-After": {c.text}, "Date": {c.date}}, now); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("120", "")
	f.Add("99999999999999999999", "Fri, 01 May 2026 12:00:00 GMT")
	f.Add("Fri, 01 May 2026 12:00:30 GMT", "Fri, 01 May 0001 12:00:00 GMT")
	f.Add("Friday, 01-May-26 12:00:30 GMT", "x")
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text, date string) {
		got := retryAfter(http.Header{"Retry-After": {text}, "Date": {date}}, now)
		if got < 0 || got > maxRetryAfter {
			t.Errorf("%q: %v", text, got)
		}
		if number := strings.TrimLeft(strings.TrimSpace(text), "0"); number != "" && strings.Trim(number, "0123456789") == "" && got == 0 {
			t.Errorf("%q: not heeded", text)
		}
	})
}

func TestPace(t *testing.T) {
	down := &fault{}
	for _, c := range []struct {
		poll, want, most time.Duration
	}{
		{0, 30 * time.Second, time.Minute},
		{-1, 30 * time.Second, time.Minute},
		{time.Millisecond, time.Second, time.Minute},
		{5 * time.Second, 5 * time.Second, time.Minute},
		{time.Hour, time.Hour, time.Minute},
	} {
		p := newPace(c.poll)
		seen := map[time.Duration]bool{}
		for range 200 {
			got := p.next(nil)
			if got < c.want*9/10 || got > c.want*11/10 {
				t.Errorf("poll %v: asks after %v", c.poll, got)
			}
			seen[got] = true
		}
		if len(seen) < 100 {
			t.Errorf("poll %v: %d different waits of 200", c.poll, len(seen))
		}
		for range 2 { // A success in between starts it anew.
			p.next(nil)
			for want, n := time.Second, 0; n < 15; want, n = min(2*want, c.most), n+1 {
				if got := p.next(down); got < want/2 || got > want*3/2+1 {
					t.Errorf("poll %v: retries after %v, want about %v", c.poll, got, want)
				}
			}
		}
	}
}

func TestPaceOfRetryAfter(t *testing.T) {
	for _, c := range []struct{ after, least, most time.Duration }{
		{5 * time.Minute, 5 * time.Minute, 5*time.Minute + 30*time.Second},
		{maxRetryAfter, maxRetryAfter, maxRetryAfter},
		{maxRetryAfter - time.Second, maxRetryAfter - time.Second, maxRetryAfter},
		{time.Nanosecond, time.Second / 2, 3*time.Second/2 + 1}, // Its own pace is longer.
	} {
		for range 100 {
			if got := newPace(0).next(&fault{after: c.after}); got < c.least || got > c.most {
				t.Errorf("asked to wait %v: waits %v", c.after, got)
			}
		}
	}
}
