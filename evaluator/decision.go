package evaluator

import "encoding/json"

// Reason is OpenFeature's word for why a decision is what it is.
type Reason string

// The reasons this package gives.
const (
	ReasonStatic         Reason = "STATIC"
	ReasonTargetingMatch Reason = "TARGETING_MATCH"
	ReasonSplit          Reason = "SPLIT"
	ReasonDefault        Reason = "DEFAULT"
	ReasonDisabled       Reason = "DISABLED"
	ReasonError          Reason = "ERROR"
)

// Reasons are all the reasons, in the order of their [Reason.Index].
var Reasons = [...]Reason{ReasonStatic, ReasonTargetingMatch, ReasonSplit, ReasonDefault, ReasonDisabled, ReasonError}

// Index returns the reason's place in [Reasons].
func (r Reason) Index() int {
	switch r {
	case ReasonStatic:
		return 0
	case ReasonTargetingMatch:
		return 1
	case ReasonSplit:
		return 2
	case ReasonDefault:
		return 3
	case ReasonDisabled:
		return 4
	}
	return 5
}

// ErrorCode is OpenFeature's word for what went wrong, where Reason is ERROR.
type ErrorCode string

// The error codes this package gives.
const (
	FlagNotFound        ErrorCode = "FLAG_NOT_FOUND"
	TargetingKeyMissing ErrorCode = "TARGETING_KEY_MISSING"
	General             ErrorCode = "GENERAL"
)

// Decision is what one flag comes to for one context. Decisions that rulesets
// hand out are shared and must not be changed.
type Decision struct {
	Flag    string          `json:"-"`
	Index   int             `json:"-"` // of Variant in the ruleset's [Ruleset.Variants]; -1 for an unknown flag
	Enabled bool            `json:"enabled"`
	Variant string          `json:"variant"` // "off" while not enabled
	Reason  Reason          `json:"reason"`
	Detail  string          `json:"detail,omitempty"` // "rollout", "rule:NAME", "tripped:errors", …; see docs/decisions.md
	Value   json.RawMessage `json:"value,omitempty"`  // nil: the flag gives none
	Code    ErrorCode       `json:"error_code,omitempty"`
	Message string          `json:"error_message,omitempty"`
}

// Step is one stage of the cascade as it went for one context.
type Step struct {
	Check  string `json:"check"`          // "active", "region", "rule:NAME", …
	Passed bool   `json:"passed"`         // false: the decision was made here, or a rule did not hold
	Info   string `json:"info,omitempty"` // what was compared with what
}
