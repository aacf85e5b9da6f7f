package evaluator

import (
	"encoding/json"
	"time"
)

// Document is one decoded source of definitions.
type Document struct {
	Name     string     // of the source, for error texts
	Segments []*Segment // in the order of the text
	Flags    []*Flag    // in the order of the text
	Errors   Errors     // the mistakes that Decode found; Compile refuses the document
}

// Segment is a named condition that rules share: segment("NAME") in CEL.
type Segment struct {
	Name   string
	When   string   // CEL; "" when the segment only lists users
	Users  []string // targeting keys that are always in it
	Source string
	Pos    Position
}

// Flag is the definition of one flag, checked field by field.
type Flag struct {
	Name             string
	Active           bool
	Environments     *[]string // nil: everywhere
	ActivationDate   time.Time // zero: from ever
	DeactivationDate time.Time // zero: for ever
	DependsOn        []Dependency
	Users            *[]string // nil: no list
	Regions          *[]string // nil: no condition
	AccountTypes     *[]string
	Devices          *[]string
	BetaProgram      bool // true: only for members
	Rules            []Rule
	Percentage       *Share    // nil: no rollout, on for all who pass
	HashBy           string    // attribute to bucket by; "" is the targeting key
	Salt             string    // the flag's name unless given
	Variants         []Variant // empty: on and off
	Client           bool
	FallbackFor      string
	Exclusive        string

	ErrorThreshold       *int64         // canary errors
	PerformanceBaseline  *time.Duration // to the first byte
	PerformanceThreshold *int64         // slow canary requests
	TrafficDropThreshold *float64       // per cent

	Guard      Guard
	GuardGiven bool // the definition has a `guard` field
	Rollout    *Rollout
	Metadata   Metadata

	Source string          // of the document that defines it
	Pos    Position        // of its name there
	Raw    json.RawMessage // the definition as written, as compact JSON
}

// Share is a percentage in units of 1e-5 of a per cent point, from 0 to
// 10,000,000; definitions give up to three decimals.
type Share int64

// Percent returns the share in per cent, 0 to 100.
func (s Share) Percent() float64 { return float64(s) / perCent }

// ShareOf returns the share of p per cent, 0 to 100.
func ShareOf(p float64) Share { return Share(p*perCent + 0.5) }

// Dependency is a flag that must be on, with the variant it must serve or "".
type Dependency struct {
	Flag    string
	Variant string
	Pos     Position
}

// Rule serves a variant, or weights, to those for whom When holds.
type Rule struct {
	Name  string   // its number from 1 unless given
	When  string   // CEL over the attributes; "" holds for everybody
	Serve []Weight // empty: on as the flag's variants are weighted
	Pos   Position
}

// Weight is a variant's share.
type Weight struct {
	Variant string
	Share   Share
}

// Variant is one of a flag's variants.
type Variant struct {
	Name  string
	Share Share           // of those the flag is on for
	Value json.RawMessage // nil: none given
}

// Names of the variants of a flag that defines none, and of every flag's
// answer while it is off.
const (
	On  = "on"
	Off = "off"
)

// Metadata is what people tell each other about a flag.
type Metadata struct {
	Description string
	Owner       string
	Type        string    // release, experiment, operational, permission or ""
	Expires     time.Time // when it should be gone; zero: not said
}

// Guard is the flag's kill switch as configured; see [DefaultGuard].
type Guard struct {
	Enabled    bool
	FalseAlarm float64 // bound on the chance of a false trip over the life of a rollout, in (0, 0.5]
	Errors     *ErrorGuard
	Latency    *LatencyGuard
	Traffic    string        // "hold", "trip" or "off"
	Feedback   bool          // clearly worse ratings hold the rollout
	Settle     time.Duration // how long a block of requests may stay open at least
	UserEpoch  time.Duration // how long a user who met an error is left out
	MinUsers   int           // distinct failing users before a trip
	CoolDown   time.Duration // 0: never by itself
	Rearm      string        // "manual" or "edit"
}

// ErrorGuard compares error rates; nil turns it off.
type ErrorGuard struct {
	TolerateRatio float64 // canary's rate over the control's, 1 or more
	Tolerate      float64 // added to it; a rate, 0 to 1
	Match         []ResponseMatch
}

// ResponseMatch names a response that means failure whatever its status says.
type ResponseMatch struct {
	Header map[string]string // every one must be there; "*" matches any value
	Status []int             // one of these; empty: any
}

// LatencyGuard compares times to the first byte; nil turns it off.
type LatencyGuard struct {
	Tolerate float64       // a fraction: 0.1 is 10 % slower
	WarmUp   time.Duration // latency does not count before
}

// DefaultGuard returns the guard of a flag that says nothing about it.
func DefaultGuard() Guard {
	return Guard{
		Enabled:    true,
		FalseAlarm: 1e-4,
		Errors:     &ErrorGuard{TolerateRatio: 1.2, Tolerate: 0.0005},
		Latency:    &LatencyGuard{Tolerate: 0.1, WarmUp: time.Minute},
		Traffic:    "hold",
		Settle:     time.Second,
		UserEpoch:  24 * time.Hour,
		MinUsers:   3,
		Rearm:      "manual",
	}
}
