package evaluator

import (
	"math"
	"testing"
	"time"
)

// Half-open, a tripped flag is on for a few whom its split chooses, and for nobody
// whom it lists or has rules for; its stand-in stays.
func TestProbing(t *testing.T) {
	const flags = `{
		"f": {"active": true, "users": ["ana"], "regions": ["RO"], "rules": [{"when": "vip == true", "serve": "on"}], "percentage_rollout": 10},
		"stand_in": {"active": true, "fallback_for": "f"}
	}`
	inside, outside := "", "" // of the first tenth of a per cent, and of the rest of ten per cent
	for i := 0; inside == "" || outside == ""; i++ {
		id := "u" + string(rune('a'+i%26)) + time.Duration(i).String()
		switch b := Bucket(id, "f"); {
		case b < 0.1:
			inside = id
		case b < 10:
			outside = id
		}
	}
	tripped := map[string]State{"f": {Tripped: "errors"}}
	probing := map[string]State{"f": {Tripped: "errors", Probing: true, Share: share(0.1)}}
	disabled := map[string]State{"f": {Tripped: "errors", Probing: true, Share: share(0.1), Override: Disabled}}
	runStages(t, []stage{
		{name: "tripped", flags: flags, ctx: `{"user_id": "` + inside + `", "region": "RO"}`, state: tripped, want: "off DISABLED tripped:errors"},
		{name: "half-open, one of the few", flags: flags, ctx: `{"user_id": "` + inside + `", "region": "RO"}`, state: probing, want: "on SPLIT rollout"},
		{name: "half-open, conditions stay", flags: flags, ctx: `{"user_id": "` + inside + `", "region": "US"}`, state: probing, want: "off DEFAULT region"},
		{name: "half-open, another of the canary", flags: flags, ctx: `{"user_id": "` + outside + `", "region": "RO"}`, state: probing, want: "off SPLIT rollout"},
		{name: "half-open, a listed user", flags: flags, ctx: `{"user_id": "ana"}`, state: probing, want: "off DEFAULT region"},
		{name: "half-open, a rule", flags: flags, ctx: `{"user_id": "` + outside + `", "region": "RO", "vip": true}`, state: probing, want: "off SPLIT rollout"},
		{name: "half-open, disabled by hand", flags: flags, ctx: `{"user_id": "` + inside + `", "region": "RO"}`, state: disabled, want: "off DISABLED override"},
	})
	r := compileText(t, flags).With(probing)
	if d := r.Evaluate("stand_in", contextOf(t, "", `{}`), time.Now()); !d.Enabled {
		t.Errorf("half-open, the stand-in is %s %s", d.Variant, d.Detail)
	}
	if !r.Splits(r.Index("f")) || !r.InForce(r.Index("f"), "", time.Now()) {
		t.Error("half-open, it does not split, or is not in force")
	}
}

// Who is served by the split is known as a share, also of variants and of what is
// tried again.
func TestCanaryAndProbeShares(t *testing.T) {
	for _, c := range []struct {
		name, flag    string
		canary, probe float64 // a share, and per cent
		ok            bool
	}{
		{"a percentage", `{"active": true, "percentage_rollout": 10}`, 0.1, 0.1, true},
		{"everybody", `{"active": true}`, 1, 1, true},
		{"nobody", `{"active": true, "percentage_rollout": 0}`, 0, 0, false},
		{"a hundredth of little is not nothing", `{"active": true, "percentage_rollout": 0.001}`, 0.00001, 0.00001, true},
		{"variants, one of them off", `{"active": true, "variants": {"a": {"weight": 30}, "b": {"weight": 20}, "off": {"weight": 50}}}`, 0.5, 1, true},
		{"variants of a part", `{"active": true, "percentage_rollout": 40, "variants": {"a": {"weight": 50}, "off": {"weight": 50}}}`, 0.2, 0.4, true},
		{"listed users only", `{"active": true, "users": ["ana"]}`, 1, 0, false},
		{"listed users and a region", `{"active": true, "users": ["ana"], "regions": ["RO"]}`, 1, 1, true},
	} {
		r := compileText(t, `{"f": `+c.flag+`}`).With(nil)
		if got := r.CanaryShare(0); math.Abs(got-c.canary) > 1e-9 {
			t.Errorf("%s: canary %v, want %v", c.name, got, c.canary)
		}
		got, ok := r.ProbeShare(0, nil)
		if ok != c.ok || ok && math.Abs(got.Percent()-c.probe) > 1e-9 {
			t.Errorf("%s: probe %v, %t, want %v, %t", c.name, got.Percent(), ok, c.probe, c.ok)
		}
	}
	r := compileText(t, `{"f": {"active": true, "percentage_rollout": 10}}`).With(nil)
	if got, ok := r.ProbeShare(0, share(50)); !ok || got.Percent() != 0.5 {
		t.Errorf("a hundredth of what was in force: %v, %t", got.Percent(), ok)
	}
}
