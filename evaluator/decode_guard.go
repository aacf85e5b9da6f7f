package evaluator

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

func (d *decoder) guard(n *node, path string) Guard {
	g := DefaultGuard()
	if n.kind == boolNode {
		g.Enabled = n.text == "true"
		return g
	}
	if !d.isSection(n, path) {
		return g
	}
	d.object(n, path, map[string]func(*node, string){
		"false_alarm": func(n *node, p string) {
			g.FalseAlarm, _ = d.number(n, p, "a probability, more than 0 and at most 0.5", func(f float64) bool { return f > 0 && f <= 0.5 })
		},
		"errors":     func(n *node, p string) { g.Errors = d.errorGuard(n, p) },
		"latency":    func(n *node, p string) { g.Latency = d.latencyGuard(n, p) },
		"traffic":    func(n *node, p string) { g.Traffic = d.trafficGuard(n, p) },
		"feedback":   func(n *node, p string) { g.Feedback = d.feedbackGuard(n, p) },
		"settle":     func(n *node, p string) { g.Settle = d.duration(n, p, 0, time.Minute) },
		"user_epoch": func(n *node, p string) { g.UserEpoch = d.duration(n, p, time.Second, 30*24*time.Hour) },
		"min_users": func(n *node, p string) {
			f, _ := d.number(n, p, "a whole number from 1 to 1000", func(f float64) bool { return f >= 1 && f <= 1000 && f == float64(int(f)) })
			g.MinUsers = int(f)
		},
		"cool_down": func(n *node, p string) { g.CoolDown = d.duration(n, p, time.Second, 30*24*time.Hour) },
		"rearm":     func(n *node, p string) { g.Rearm = d.oneOf(n, p, "manual", "edit") },
	})
	return g
}

// isSection complains of what is neither a boolean nor an object.
func (d *decoder) isSection(n *node, path string) bool {
	if n.kind != objectNode {
		d.errorf(n.pos, "%s: want true, false or an object, got %s", path, n.describe())
		return false
	}
	return true
}

func (d *decoder) errorGuard(n *node, path string) *ErrorGuard {
	g := DefaultGuard().Errors
	if n.kind == boolNode {
		if n.text == "false" {
			return nil
		}
		return g
	}
	if !d.isSection(n, path) {
		return g
	}
	d.object(n, path, map[string]func(*node, string){
		"tolerate_ratio": func(n *node, p string) {
			g.TolerateRatio, _ = d.number(n, p, "a ratio from 1 to 100", func(f float64) bool { return f >= 1 && f <= 100 })
		},
		"tolerate": func(n *node, p string) { g.Tolerate = d.fraction(n, p, 0.5) },
		"match":    func(n *node, p string) { g.Match = d.responseMatches(n, p) },
	})
	return g
}

var headerPattern = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$") // RFC 9110, section 5.6.2

func (d *decoder) responseMatches(n *node, path string) (out []ResponseMatch) {
	if n.kind != listNode {
		d.errorf(n.pos, "%s: want a list of {header, status}, got %s", path, n.describe())
		return nil
	}
	for i, item := range n.items {
		var m ResponseMatch
		at := fmt.Sprintf("%s[%d]", path, i)
		seen := d.object(item, at, map[string]func(*node, string){
			"header": func(n *node, p string) {
				if n.kind != objectNode {
					d.errorf(n.pos, "%s: want an object of header to value, got %s", p, n.describe())
					return
				}
				if len(n.fields) == 0 {
					d.errorf(n.pos, "%s: is empty, and would match every response", p)
				}
				m.Header = make(map[string]string, len(n.fields))
				for _, f := range n.fields {
					if !headerPattern.MatchString(f.name) {
						d.errorf(f.pos, "%s: %q is not the name of a header", p, clip(f.name))
					}
					if _, given := m.Header[f.name]; given {
						d.errorf(f.pos, "%s: field %q is given twice", p, clip(f.name))
					}
					m.Header[f.name] = d.text(f.value, join(p, label(f.name)))
				}
			},
			"status": func(n *node, p string) {
				items := []*node{n}
				if n.kind == listNode {
					items = n.items
				}
				if len(items) == 0 {
					d.errorf(n.pos, "%s: is empty, and would match every response", p)
				}
				for _, item := range items {
					f, _ := d.number(item, p, "a status from 200 to 599", func(f float64) bool { return f >= 200 && f <= 599 && f == float64(int(f)) })
					m.Status = append(m.Status, int(f))
				}
			},
		})
		if item.kind == objectNode && len(seen) == 0 {
			d.errorf(item.pos, "%s: want `header`, `status` or both", at)
		}
		out = append(out, m)
	}
	return out
}

func (d *decoder) latencyGuard(n *node, path string) *LatencyGuard {
	g := DefaultGuard().Latency
	if n.kind == boolNode {
		if n.text == "false" {
			return nil
		}
		return g
	}
	if !d.isSection(n, path) {
		return g
	}
	d.object(n, path, map[string]func(*node, string){
		"tolerate": func(n *node, p string) { g.Tolerate = d.fraction(n, p, 100) },
		"warm_up":  func(n *node, p string) { g.WarmUp = d.duration(n, p, 0, 24*time.Hour) },
	})
	return g
}

func (d *decoder) feedbackGuard(n *node, path string) bool {
	if n.kind == boolNode {
		return n.text == "true"
	}
	return d.oneOf(n, path, "hold") != ""
}

func (d *decoder) trafficGuard(n *node, path string) string {
	if n.kind == boolNode {
		if n.text == "false" {
			return Off
		}
		return "hold"
	}
	return d.oneOf(n, path, "hold", "trip")
}

// fraction reads "0.05%", or a bare number as a fraction of 1.
func (d *decoder) fraction(n *node, path string, most float64) float64 {
	text, isPercent := strings.CutSuffix(n.text, "%")
	f, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if isPercent {
		f /= 100
	}
	if (n.kind != stringNode && n.kind != numberNode) || err != nil || !(f >= 0 && f <= most) {
		d.errorf(n.pos, `%s: want a percentage as "0.05%%", at most %g%%, got %s`, path, most*100, n.describe())
		return 0
	}
	return f
}

// duration reads Go's syntax, with d for days.
func (d *decoder) duration(n *node, path string, least, most time.Duration) time.Duration {
	v, err := parseDuration(n.text)
	if n.kind != stringNode || err != nil || v < least || v > most {
		d.errorf(n.pos, `%s: want a duration as "30s", from %s to %s, got %s`, path, formatDuration(least), formatDuration(most), n.describe())
		return least
	}
	return v
}

func parseDuration(s string) (time.Duration, error) {
	if days, found := strings.CutSuffix(s, "d"); found {
		f, err := strconv.ParseFloat(days, 64)
		if err == nil && !(math.Abs(f) <= 100_000) {
			err = strconv.ErrRange
		}
		return time.Duration(f * 24 * float64(time.Hour)), err
	}
	return time.ParseDuration(s)
}

// formatDuration writes a round duration without the zeros of its parts.
func formatDuration(d time.Duration) string {
	day := 24 * time.Hour
	switch {
	case d >= day && d%day == 0:
		return strconv.Itoa(int(d/day)) + "d"
	case d >= time.Hour && d%time.Hour == 0:
		return strconv.Itoa(int(d/time.Hour)) + "h"
	case d >= time.Minute && d%time.Minute == 0:
		return strconv.Itoa(int(d/time.Minute)) + "m"
	}
	return d.String()
}

func (d *decoder) rollout(n *node, path string) *Rollout {
	r := &Rollout{}
	approvePos, stepsPos := n.pos, n.pos
	seen := d.object(n, path, map[string]func(*node, string){
		"steps":   func(n *node, p string) { stepsPos, r.Steps = n.pos, d.steps(n, p) },
		"bake":    func(n *node, p string) { r.Bake = d.duration(n, p, 0, 30*24*time.Hour) },
		"approve": func(n *node, p string) { approvePos, r.Approve = n.pos, d.steps(n, p) },
		"over":    func(n *node, p string) { r.Over = d.duration(n, p, time.Minute, 365*24*time.Hour) },
		"min_requests": func(n *node, p string) {
			if c := d.count(n, p); c != nil {
				r.MinRequests = *c
			}
		},
	})
	if n.kind == objectNode && !seen["steps"] && !seen["over"] {
		d.errorf(n.pos, "%s: want `steps` or `over`", path)
	}
	if !seen["bake"] {
		r.Bake = DefaultBake
	}
	if !seen["min_requests"] && !seen["over"] {
		r.MinRequests = DefaultMinRequests
	}
	if seen["over"] {
		r.Bake = 0
		if seen["bake"] {
			d.errorf(n.pos, "%s: bake: the pace of a ramp is `over`; leave one of them out", path)
		}
		if len(r.Steps) > 2 {
			d.errorf(stepsPos, "%s.steps: a ramp (`over`) has two ends, got %d steps", path, len(r.Steps))
		}
		if seen["approve"] {
			d.errorf(approvePos, "%s.approve: a ramp (`over`) has no steps to wait at", path)
		}
		return r
	}
	for _, a := range r.Approve {
		if !slices.Contains(r.Steps, a) {
			d.errorf(approvePos, "%s.approve: %s is not one of the steps", path, formatShare(a))
		}
	}
	return r
}

func (d *decoder) steps(n *node, path string) (out []Share) {
	if n.kind != listNode {
		d.errorf(n.pos, "%s: want a list of percentages, got %s", path, n.describe())
		return nil
	}
	if len(n.items) == 0 {
		d.errorf(n.pos, "%s: is empty", path)
	}
	for i, item := range n.items {
		s, ok := d.share(item, fmt.Sprintf("%s[%d]", path, i))
		if !ok {
			continue
		}
		if len(out) > 1 && (s > out[len(out)-1]) != (out[1] > out[0]) || len(out) > 0 && s == out[len(out)-1] {
			d.errorf(item.pos, "%s: want steps that only climb or only fall, got %s after %s", path, formatShare(s), formatShare(out[len(out)-1]))
		}
		out = append(out, s)
	}
	return out
}
