package simulation

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/monitors"
)

type respond = func(rng *rand.Rand, q *simulated)

// during has something happen to both cohorts for a time.
func during(from, to time.Duration, what respond) respond {
	return func(rng *rand.Rand, q *simulated) {
		if q.at >= from && q.at < to {
			what(rng, q)
		}
	}
}

// onCanary has it happen to the canary only.
func onCanary(what respond) respond {
	return func(rng *rand.Rand, q *simulated) {
		if q.canary {
			what(rng, q)
		}
	}
}

func fails(share float64) respond {
	return func(rng *rand.Rand, q *simulated) { q.bad = rng.Float64() < share }
}

func failsAtOnce(_ *rand.Rand, q *simulated) { q.bad, q.wait = true, 10*time.Millisecond }

func slower(factor float64) respond {
	return func(_ *rand.Rand, q *simulated) { q.wait = time.Duration(float64(q.wait) * factor) }
}

const (
	minute = time.Minute
	hour   = time.Hour
	day    = 24 * time.Hour
	ever   = 1000 * day
)

// aMinuteEach is one request a minute and cohort.
const aMinuteEach = 2.0 / 60

// Scenarios are what a guard must answer, each with the right answer.
var Scenarios = []Scenario{
	{
		ID: "S01", Summary: "the canary answers 5xx to everything, in 10 ms", Want: monitors.Trip,
		Budget: Budget{Delay: 1500 * time.Millisecond, Failures: 14}, respond: during(minute, ever, onCanary(failsAtOnce)),
	},
	{
		ID: "S22", Summary: "the same with a canary of 1 %", Want: monitors.Trip, share: 0.01,
		Budget: Budget{Delay: 8 * time.Second, Failures: 8}, respond: during(minute, ever, onCanary(failsAtOnce)),
	},
	{
		ID: "S02", Summary: "errors of the canary rise from 1 % to 3 %", Want: monitors.Trip, Budget: Budget{Delay: 400 * time.Second},
		respond: func(rng *rand.Rand, q *simulated) {
			if q.bad = rng.Float64() < 0.01; q.canary && q.at >= minute {
				q.bad = rng.Float64() < 0.03
			}
		},
	},
	{
		ID: "S04", Summary: "3 % of the canary's requests take 2 s more", Want: monitors.Trip, Budget: Budget{Delay: 80 * time.Second},
		respond: during(minute, ever, onCanary(func(rng *rand.Rand, q *simulated) {
			if rng.Float64() < 0.03 {
				q.wait += 2 * time.Second
			}
		})),
	},
	{
		ID: "S08", Summary: "the canary never answers, and nothing gives up", Want: monitors.Trip, Budget: Budget{Delay: 3 * time.Second},
		respond: during(minute, ever, onCanary(func(_ *rand.Rand, q *simulated) { q.wait = never })),
	},
	{
		ID: "S08-timeout", Summary: "the canary never answers; the proxy gives up after 30 s", Want: monitors.Trip, Budget: Budget{Delay: 3 * time.Second},
		respond: during(minute, ever, onCanary(func(_ *rand.Rand, q *simulated) { q.wait, q.bad, q.status = 30*time.Second, true, 504 })),
	},
	{
		ID: "S09", Summary: "30 % of the canary's answers are broken off in the middle, after a 200", Want: monitors.Trip, Budget: Budget{Delay: 6 * time.Second},
		respond: during(minute, ever, onCanary(func(rng *rand.Rand, q *simulated) {
			if q.body = 20 * time.Millisecond; rng.Float64() < 0.3 {
				q.bad, q.status = true, 200
			}
		})),
	},
	{
		ID: "S13", Summary: "one request a minute and cohort; all of the canary's fail", Want: monitors.Trip, perSecond: aMinuteEach, share: 0.5,
		Budget: Budget{Delay: 18 * minute, Failures: 18}, respond: during(minute, ever, onCanary(failsAtOnce)),
	},
	{
		ID: "S18", Summary: "the canary fails half for 10 s, is well for 50 s, again and again", Want: monitors.Trip, Budget: Budget{Delay: 5 * time.Second},
		respond: during(minute, ever, onCanary(func(rng *rand.Rand, q *simulated) {
			if (q.at-minute)%minute < 10*time.Second {
				q.bad = rng.Float64() < 0.5
			}
		})),
	},
	{
		ID: "G1", Summary: "gRPC: 5 % of the canary's answers are status 200 with a trailer that means failure", Want: monitors.Trip, Budget: Budget{Delay: 40 * time.Second},
		respond: during(minute, ever, onCanary(func(rng *rand.Rand, q *simulated) { q.bad, q.status = rng.Float64() < 0.05, 200 })),
	},
	{
		ID: "P1", Summary: "a fifth of the requests are POSTs, of which 30 % fail on the canary", Want: monitors.Trip, Budget: Budget{Delay: 30 * time.Second},
		respond: during(minute, ever, onCanary(func(rng *rand.Rand, q *simulated) {
			if rng.Float64() < 0.2 {
				q.bad = rng.Float64() < 0.3
			}
		})),
	},
	{
		ID: "S11", Summary: "what both versions need is down from 600 to 1,200 s: 40 % errors in both", Want: monitors.Keep, Hold: monitors.HoldControl,
		respond: during(10*minute, 20*minute, fails(0.4)),
	},
	{
		ID: "S12", Summary: "both versions are 12 times slower from 600 to 1,200 s", Want: monitors.Keep, Hold: monitors.HoldControl, // most are not answered within the limit
		respond: during(10*minute, 20*minute, slower(12)),
	},
	{
		ID: "slow-together", Summary: "both versions are 3 times slower from 600 to 1,200 s", Want: monitors.Keep, Hold: monitors.HoldSlow,
		respond: during(10*minute, 20*minute, slower(3)),
	},
	{
		ID: "S14", Summary: "one request a minute and cohort, 2 % errors in both", Want: monitors.Keep, perSecond: aMinuteEach, share: 0.5,
		respond: fails(0.02),
	},
	{ID: "S15", Summary: "nothing is wrong", Want: monitors.Keep, Budget: Budget{False: 0.005}},
	{ID: "S16", Summary: "both fail 6 %, always", Want: monitors.Keep, Budget: Budget{False: 0.01}, respond: fails(0.06)},
	{
		ID: "S17", Summary: "the canary is 8 times slower for its first 45 s", Want: monitors.Keep, Hold: monitors.HoldWarmUp,
		respond: during(0, 45*time.Second, onCanary(slower(8))),
	},
	{
		ID: "S19", Summary: "a bot in the canary makes 15 % of all requests, and 60 % of them fail in either version", Want: monitors.Keep, bot: 0.15,
		respond: func(rng *rand.Rand, q *simulated) {
			if q.bot {
				q.bad = rng.Float64() < 0.6
			}
		},
	},
	{
		ID: "S20", Summary: "the canary mends a bug: 5 % errors in the control, 0.1 % in the canary", Want: monitors.Keep,
		respond: func(rng *rand.Rand, q *simulated) {
			if !q.canary {
				q.bad = rng.Float64() < 0.05
			}
		},
	},
	{
		ID: "S24", Summary: "nine in ten of the canary's users stop coming; who comes is served well", Want: monitors.Hold, Hold: monitors.HoldTraffic,
		Budget: Budget{Delay: minute}, Length: 10 * minute,
		comes: func(at time.Duration, user int, canary bool) bool {
			return !canary || at < minute || unit(1<<40, uint64(user)) < 0.1
		},
	},
	{
		ID: "S29", Summary: "no traffic at all for 30 minutes", Want: monitors.Keep, Hold: monitors.HoldSilence,
		comes: func(at time.Duration, _ int, _ bool) bool { return at < 10*minute || at >= 40*minute },
	},
	{
		ID: "hang-or-fail", Summary: "what both need is down: half of the canary's requests fail at once, half of the control's hang for 30 s", Want: monitors.Keep,
		respond: during(10*minute, 20*minute, func(rng *rand.Rand, q *simulated) {
			if rng.IntN(2) == 0 {
				return
			}
			if q.bad, q.wait, q.status = true, 30*time.Second, 504; q.canary {
				q.wait, q.status = 10*time.Millisecond, 502
			}
		}),
	},
	{
		ID: "glitch", Summary: "the canary fails for a tenth of a second, once", Want: monitors.Keep,
		respond: during(10*minute, 10*minute+100*time.Millisecond, onCanary(failsAtOnce)),
	},
	{
		ID: "retries", Summary: "2 % of both fail, and clients try what failed up to five times more", Want: monitors.Keep, retries: 5,
		respond: fails(0.02),
	},
	{
		ID: "retries-nobody", Summary: "the same, and nobody knows who asks", Want: monitors.Keep, retries: 5, nobody: true, Budget: Budget{False: 0.01},
		respond: fails(0.02),
	},
	{
		ID: "unlike-users", Summary: "users differ: some are served three times as slowly as others, wherever", Want: monitors.Keep, users: 300, share: 0.03,
		respond: func(_ *rand.Rand, q *simulated) {
			q.wait = time.Duration(float64(q.wait) * math.Exp(0.5*normal(uint64(q.user))))
		},
	},
	{
		ID: "day-and-night", Summary: "traffic and errors of both follow the day, ten to one", Want: monitors.Keep, Length: 3 * hour,
		rate: func(at time.Duration) float64 { return 0.55 - 0.45*math.Cos(2*math.Pi*at.Hours()) },
		respond: func(rng *rand.Rand, q *simulated) {
			busy := 0.55 - 0.45*math.Cos(2*math.Pi*q.at.Hours())
			q.bad = rng.Float64() < 0.02*busy
			q.wait = time.Duration(float64(q.wait) * (1 + busy))
		},
	},
	{
		ID: "slow-by-half", Summary: "the canary is half as slow again", Want: monitors.Trip, Onset: 20 * minute, Length: 2 * hour, Budget: Budget{Delay: 2 * minute},
		respond: during(20*minute, ever, onCanary(slower(1.5))),
	},
	{
		ID: "slow-by-tenth", Summary: "the canary is slower by a tenth, which is tolerated", Want: monitors.Keep,
		respond: during(20*minute, ever, onCanary(slower(1.1))),
	},
	{
		ID: "fails-half", Summary: "half of the canary's requests fail, 200 requests a second", Want: monitors.Trip, perSecond: 200,
		Budget: Budget{Delay: 2 * time.Second}, respond: during(minute, ever, onCanary(fails(0.5))),
	},
	{
		ID: "half", Summary: "the canary is one half, and fails 5 %", Want: monitors.Trip, share: 0.5, Budget: Budget{Delay: 30 * time.Second},
		respond: during(minute, ever, onCanary(fails(0.05))),
	},
	{
		ID: "busy", Summary: "2,000 requests a second, and the canary fails everything", Want: monitors.Trip, perSecond: 2000, users: 40_000, Length: 5 * minute,
		Budget: Budget{Delay: time.Second}, respond: during(minute, ever, onCanary(failsAtOnce)),
	},
	{
		ID: "outage-then-bad", Summary: "both fail for a minute, and ten minutes later the canary alone", Want: monitors.Trip, Onset: 20 * minute,
		Budget: Budget{Delay: 5 * time.Second},
		respond: func(rng *rand.Rand, q *simulated) {
			switch {
			case q.at >= 9*minute && q.at < 10*minute:
				q.bad = rng.Float64() < 0.5
			case q.at >= 20*minute && q.canary:
				q.bad = rng.Float64() < 0.5
			}
		},
	},
	{
		ID: "gone", Summary: "the canary hangs, and its clients give up after five seconds", Want: monitors.Trip, Budget: Budget{Delay: 3 * time.Second},
		respond: during(minute, ever, onCanary(func(_ *rand.Rand, q *simulated) { q.wait, q.gone = 5*time.Second, true })),
	},
	{
		ID: "breaks-off-late", Summary: "30 % of the canary's answers are broken off two seconds after they began", Want: monitors.Trip, Budget: Budget{Delay: 15 * time.Second},
		respond: during(minute, ever, onCanary(func(rng *rand.Rand, q *simulated) {
			if q.status, q.body = 200, 50*time.Millisecond; rng.Float64() < 0.3 {
				q.bad, q.body = true, 2*time.Second
			}
		})),
	},
	{
		ID: "download", Summary: "a tenth of the answers take half a minute in either version, and one in a hundred of them breaks off", Want: monitors.Keep,
		respond: func(rng *rand.Rand, q *simulated) {
			if rng.Float64() < 0.1 {
				q.status, q.body, q.bad = 200, time.Duration(10e9+40e9*rng.Float64()), rng.Float64() < 0.01
			}
		},
	},
	{
		ID: "slower-bot", Summary: "a bot in the canary makes 15 % of all requests, of a page that takes 0.8 s in either version", Want: monitors.Keep, bot: 0.15,
		respond: func(_ *rand.Rand, q *simulated) {
			if q.bot {
				q.wait += 800 * time.Millisecond
			}
		},
	},
	{
		ID: "hang-or-refuse", Summary: "what both need is down from 600 to 1,200 s: half of the control's requests fail at once, half of the canary's hang", Want: monitors.Keep, Hold: monitors.HoldControl,
		Onset: 10 * minute,
		respond: during(10*minute, 20*minute, func(rng *rand.Rand, q *simulated) {
			switch down := rng.Float64() < 0.5; {
			case down && q.canary:
				q.bad, q.wait = true, 30*time.Second
			case down:
				q.bad, q.wait = true, 5*time.Millisecond
			}
		}),
	},
	{
		ID: "slow-bot", Summary: "a bot in the canary makes 15 % of all requests, of a page that takes 5 s in either version", Want: monitors.Keep, bot: 0.15,
		respond: func(_ *rand.Rand, q *simulated) {
			if q.bot {
				q.wait += 5 * time.Second
			}
		},
	},
	{
		ID: "long-poll", Summary: "a twentieth of the users wait for news, 25 s at a time, in either version", Want: monitors.Keep,
		respond: func(_ *rand.Rand, q *simulated) {
			if unit(1<<41, uint64(q.user)) < 0.05 {
				q.wait = 25 * time.Second
			}
		},
	},
	{
		ID: "one-user", Summary: "one user of the canary meets nothing but errors", Want: monitors.Keep,
		respond: onCanary(func(_ *rand.Rand, q *simulated) { q.bad = q.bad || q.user%97 == 5 && q.user < 300 }),
	},
}

// normal is a draw of the standard normal distribution that belongs to n for good.
func normal(n uint64) float64 { return rand.New(rand.NewPCG(n, 99)).NormFloat64() }
