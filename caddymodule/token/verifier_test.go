package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// allKeys is a config that every algorithm has a key in.
func allKeys(tb testing.TB) Config {
	tb.Helper()
	return Config{
		Secret: secret,
		PublicKeys: [][]byte{
			publicPEM(tb, rsaPair()), publicPEM(tb, p256Pair()), publicPEM(tb, p384Pair()),
			publicPEM(tb, p521Pair()), publicPEM(tb, ed25519Pair()),
		},
	}
}

func TestVerifyEveryAlgorithm(t *testing.T) {
	v := newSubject(t, allKeys(t))
	for _, name := range algorithmNames() {
		t.Run(name, func(t *testing.T) {
			raw := sign(t, name, "", `{"sub":"ann"}`)
			for range 2 { // new, then from the cache
				wantVerify(t, v, now, raw, "ann", nil)
			}
			// One bit of the signature, one letter of the claims.
			dot := strings.LastIndexByte(raw, '.')
			flipped := raw[:dot+1] + swapFirst(raw[dot+1:]) + raw[dot+2:]
			wantVerify(t, v, now, flipped, "", ErrSignature)
			other := strings.Replace(raw, encode(`{"sub":"ann"}`), encode(`{"sub":"bob"}`), 1)
			wantVerify(t, v, now, other, "", ErrSignature)

			only := allKeys(t)
			only.Algorithms = []string{"HS256"}
			if name == "HS256" {
				only.Algorithms = []string{"RS256"}
			}
			wantVerify(t, newSubject(t, only), now, raw, "", ErrAlgorithm)
		})
	}
}

func swapFirst(text string) string {
	if text[0] == 'A' {
		return "B"
	}
	return "A"
}

func TestVerifyClaims(t *testing.T) {
	const at = 1772366400 // now
	cfg := Config{Secret: secret, Issuer: "https://issuer/", Audience: []string{"shop", "till"}, Leeway: 30 * time.Second}
	full := func(extra string) string { return `{"sub":"ann","iss":"https://issuer/","aud":"shop"` + extra + `}` }
	tests := []struct {
		name   string
		claims string
		want   error
	}{
		{"plain", full(""), nil},
		{"aud as list", `{"sub":"ann","iss":"https://issuer/","aud":["other","till"]}`, nil},
		{"aud as list without ours", `{"sub":"ann","iss":"https://issuer/","aud":["other"]}`, ErrAudience},
		{"aud empty list", `{"sub":"ann","iss":"https://issuer/","aud":[]}`, ErrAudience},
		{"aud other", `{"sub":"ann","iss":"https://issuer/","aud":"Shop"}`, ErrAudience},
		{"aud missing", `{"sub":"ann","iss":"https://issuer/"}`, ErrAudience},
		{"aud number", `{"sub":"ann","iss":"https://issuer/","aud":1}`, ErrMalformed},
		{"aud list with number", `{"sub":"ann","iss":"https://issuer/","aud":["shop",1]}`, ErrMalformed},
		{"aud null", `{"sub":"ann","iss":"https://issuer/","aud":null}`, ErrMalformed},
		{"iss other", `{"sub":"ann","iss":"https://issuer","aud":"shop"}`, ErrIssuer},
		{"iss missing", `{"sub":"ann","aud":"shop"}`, ErrIssuer},
		{"iss list", `{"sub":"ann","iss":["https://issuer/"],"aud":"shop"}`, ErrMalformed},
		{"exp ahead", full(fmt.Sprintf(`,"exp":%d`, at+1)), nil},
		{"exp within leeway", full(fmt.Sprintf(`,"exp":%d`, at-29)), nil},
		{"exp at the end of leeway", full(fmt.Sprintf(`,"exp":%d`, at-30)), ErrExpired},
		{"exp past", full(fmt.Sprintf(`,"exp":%d`, at-31)), ErrExpired},
		{"exp fraction within", full(fmt.Sprintf(`,"exp":%d.5`, at-30)), nil},
		{"exp exponent", full(`,"exp":2e9`), nil},
		{"exp zero is a date", full(`,"exp":0`), ErrExpired},
		{"exp negative", full(`,"exp":-1`), ErrExpired},
		{"exp string", full(`,"exp":"1999999999"`), ErrMalformed},
		{"exp null", full(`,"exp":null`), ErrMalformed},
		{"exp bool", full(`,"exp":true`), ErrMalformed},
		{"exp last second", full(`,"exp":253402300799`), nil},
		{"exp in milliseconds", full(`,"exp":1772366400000`), ErrMalformed},
		{"exp over int64", full(`,"exp":9223372036854775808`), ErrMalformed},
		{"exp huge", full(`,"exp":1e300`), ErrMalformed},
		{"exp over float64", full(`,"exp":1e999`), ErrMalformed},
		{"exp far below", full(`,"exp":-1e300`), ErrMalformed},
		{"exp twice, the last counts", full(`,"exp":1999999999,"exp":1`), ErrExpired},
		{"nbf past", full(fmt.Sprintf(`,"nbf":%d`, at)), nil},
		{"nbf within leeway", full(fmt.Sprintf(`,"nbf":%d`, at+30)), nil},
		{"nbf ahead", full(fmt.Sprintf(`,"nbf":%d`, at+31)), ErrNotYetValid},
		{"nbf string", full(`,"nbf":"0"`), ErrMalformed},
		{"iat within leeway", full(fmt.Sprintf(`,"iat":%d`, at+30)), nil},
		{"iat ahead", full(fmt.Sprintf(`,"iat":%d`, at+31)), ErrNotYetValid},
		{"iat huge", full(`,"iat":1e20`), ErrMalformed},
		{"names count in case", `{"sub":"ann","ISS":"https://issuer/","AUD":"shop"}`, ErrIssuer},
		{"null", `null`, ErrMalformed},
		{"list", `[]`, ErrMalformed},
		{"text", `"ann"`, ErrMalformed},
		{"empty", ``, ErrMalformed},
		{"something after", full("") + "{}", ErrMalformed},
		{"rubbish after", full("") + "x", ErrMalformed},
		{"space after", full("") + " \n", nil},
		{"cut off", full("")[:20], ErrMalformed},
		{"not UTF-8", full(",\"x\":\"\xff\""), ErrMalformed},
		{"deep", full(`,"x":` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000)), nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			want := "ann"
			if test.want != nil {
				want = ""
			}
			v := newSubject(t, cfg)
			for range 2 {
				wantVerify(t, v, now, sign(t, "HS256", "", test.claims), want, test.want)
			}
			if kept := v.Health().Cached; kept != len(want)/3 {
				t.Errorf("%d tokens cached, want %d", kept, len(want)/3)
			}
		})
	}
}

func TestVerifyRequiresExpiry(t *testing.T) {
	v := newSubject(t, Config{Secret: secret, RequireExpiry: true})
	wantVerify(t, v, now, sign(t, "HS256", "", `{"sub":"ann"}`), "", ErrNoExpiry)
	wantVerify(t, v, now, sign(t, "HS256", "", `{"sub":"ann","exp":1999999999}`), "ann", nil)
}

func TestVerifyKeepsDigits(t *testing.T) {
	v, err := New(Config{Secret: secret}, func(claims map[string]any) string {
		id, _ := Lookup(claims, "user.id")
		return string(id.(json.Number))
	})
	if err != nil {
		t.Fatal(err)
	}
	wantVerify(t, v, now, sign(t, "HS256", "", `{"user":{"id":9007199254740993}}`), "9007199254740993", nil)
}

func TestVerifySize(t *testing.T) {
	raw := sign(t, "HS256", "", `{"sub":"ann"}`)
	wantVerify(t, newSubject(t, Config{Secret: secret, MaxSize: len(raw)}), now, raw, "ann", nil)
	wantVerify(t, newSubject(t, Config{Secret: secret, MaxSize: len(raw) - 1}), now, raw, "", ErrTooLarge)
	long := sign(t, "HS256", "", `{"sub":"ann","x":"`+strings.Repeat("x", 8192)+`"}`)
	wantVerify(t, newSubject(t, Config{Secret: secret}), now, long, "", ErrTooLarge)
}

func TestCacheExpires(t *testing.T) {
	calls := 0
	v, err := New(Config{Secret: secret, Leeway: time.Second}, func(claims map[string]any) string {
		calls++
		return subject(claims)
	})
	if err != nil {
		t.Fatal(err)
	}
	soon := sign(t, "HS256", "", fmt.Sprintf(`{"sub":"ann","nbf":%d,"exp":%d}`, now.Unix()-60, now.Unix()+60))
	endless := sign(t, "HS256", "", `{"sub":"bob"}`)
	steps := []struct {
		after time.Duration
		raw   string
		want  string
		err   error
		calls int
		kept  int
	}{
		{0, soon, "ann", nil, 1, 1},
		{59 * time.Second, soon, "ann", nil, 1, 1},
		{61*time.Second - 1, soon, "ann", nil, 1, 1},
		{61 * time.Second, soon, "", ErrExpired, 1, 0},
		{61 * time.Second, soon, "", ErrExpired, 1, 0},
		{0, soon, "ann", nil, 2, 1},
		{-61*time.Second - 1, soon, "", ErrNotYetValid, 2, 0}, // the clock was set back
		{0, endless, "bob", nil, 3, 1},
		{maxCached - 1, endless, "bob", nil, 3, 1},
		{maxCached, endless, "bob", nil, 4, 1},
	}
	for i, step := range steps {
		got, err := v.Verify(now.Add(step.after), step.raw)
		if got != step.want || !errors.Is(err, step.err) || calls != step.calls || v.Health().Cached != step.kept {
			t.Errorf("step %d: got %q, %v, %d calls, %d kept; want %+v", i, got, err, calls, v.Health().Cached, step)
		}
	}
}

func TestCacheSize(t *testing.T) {
	small := newSubject(t, Config{Secret: secret, CacheSize: 2})
	none := newSubject(t, Config{Secret: secret, CacheSize: -1})
	for i := range 5 {
		raw := sign(t, "HS256", "", fmt.Sprintf(`{"sub":"u%d"}`, i))
		wantVerify(t, small, now, raw, fmt.Sprintf("u%d", i), nil)
		wantVerify(t, none, now, raw, fmt.Sprintf("u%d", i), nil)
	}
	if small.Health().Cached != 2 || none.Health().Cached != 0 {
		t.Errorf("cached %d and %d, want 2 and 0", small.Health().Cached, none.Health().Cached)
	}
}

func TestVerifyConcurrently(t *testing.T) {
	v := newSubject(t, Config{Secret: secret, CacheSize: 4})
	var tokens [8]string
	for i := range tokens {
		tokens[i] = sign(t, "HS256", "", fmt.Sprintf(`{"sub":"u%d","exp":%d}`, i, now.Unix()+100))
	}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for i := range 400 {
				at, want, wantErr := now, fmt.Sprintf("u%d", i%8), error(nil)
				if i%3 == 0 {
					at, want, wantErr = now.Add(100*time.Second), "", ErrExpired
				}
				wantVerify(t, v, at, tokens[i%8], want, wantErr)
			}
		})
	}
	group.Wait()
}

func TestCause(t *testing.T) {
	seen := make(map[string]bool)
	for _, c := range causes {
		if got := Cause(fmt.Errorf("wrapped: %w", c.err)); got != c.label || seen[got] {
			t.Errorf("Cause(%v) = %q, want %q, once", c.err, got, c.label)
		}
		seen[c.label] = true
	}
	if Cause(nil) != "" || Cause(errors.New("x")) != "other" {
		t.Errorf("Cause of nil and of a stranger: %q, %q", Cause(nil), Cause(errors.New("x")))
	}
}

func TestHitDoesNotAllocate(t *testing.T) {
	v := newSubject(t, Config{Secret: secret})
	raw := sign(t, "HS256", "", `{"sub":"ann","exp":1999999999}`)
	wantVerify(t, v, now, raw, "ann", nil)
	if got := testing.AllocsPerRun(100, func() { _, _ = v.Verify(now, raw) }); got != 0 {
		t.Errorf("%v allocations on a hit, want 0", got)
	}
}
