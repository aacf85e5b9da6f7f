package tests

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

const (
	iPhone  = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1"
	pixel   = "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Mobile Safari/537.36"
	iPad    = "Mozilla/5.0 (iPad; CPU OS 12_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/12.1 Mobile/15E148 Safari/604.1"
	galaxy  = "Mozilla/5.0 (Linux; Android 14; SM-X910) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"
	firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0"
	chrome  = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"
	google  = "Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X Build/MMB29P) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Mobile Safari/537.36 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
)

// Each source of an attribute, told by the flag that it turns on.
func TestContextSources(t *testing.T) {
	long := strings.Repeat("x", 5000)
	t.Setenv("SECRET_WORD", "expanded")
	gold := `"rules": [{"when": "plan == 'gold'", "serve": "on"}, {"when": "true", "serve": "off"}]`
	user := func(name string) string { return `"users": [` + strconv.Quote(name) + `]` }
	tests := []struct {
		name, context, condition string
		path                     string
		headers                  []string
		want                     bool
	}{
		{"header", "plan header x-plan", gold, "/", []string{"X-Plan", "gold"}, true},
		{"header, with blanks", "plan header X-Plan", gold, "/", []string{"X-Plan", "  gold "}, true},
		{"header, the first of two", "plan header X-Plan", gold, "/", []string{"X-Plan", "gold", "X-Plan", "lead"}, true},
		{"header, missing", "plan header X-Plan", gold, "/", nil, false},
		{"cookie", "plan cookie plan", gold, "/", []string{"Cookie", "a=b; plan=gold; c=d"}, true},
		{"cookie, quoted", "plan cookie plan", gold, "/", []string{"Cookie", `plan="gold"`}, true},
		{"cookie, on the second line", "plan cookie plan", gold, "/", []string{"Cookie", "a=b", "Cookie", "plan=gold"}, true},
		{"cookie, another name", "plan cookie plan", gold, "/", []string{"Cookie", "xplan=gold; planx=gold; PLAN=gold"}, false},
		{"query", "plan query plan", gold, "/?a=b&plan=g%6Fld", nil, true},
		{"query, missing", "plan query plan", gold, "/?a=b", nil, false},
		{"value", "plan value gold", gold, "/", nil, true},
		{"value, placeholder", "plan value {path.0}", gold, "/gold/x", nil, true},
		{"value, several", "plan value {path.0}{path.1}", gold, "/go/ld", nil, true},
		{"value, unknown placeholder", "plan value {nobody.knows}gold", gold, "/", nil, true},
		{"beta program by cookie", "beta_program cookie beta", `"beta_program": true`, "/", []string{"Cookie", "beta=true"}, true},
		{"beta program, not quite", "beta_program cookie beta", `"beta_program": true`, "/", []string{"Cookie", "beta=maybe"}, false},
		{"the targeting key's other name", "targetingKey header X-ID", user("alice"), "/", []string{"X-ID", "alice"}, true},
		{"a number and its text", "user_id header X-ID", `"users": [7]`, "/", []string{"X-ID", "7"}, true},

		{"the first source wins", "plan header X-Plan\nplan cookie plan", gold, "/", []string{"X-Plan", "gold", "Cookie", "plan=lead"}, true},
		{"the first source wins, not the second", "plan header X-Plan\nplan cookie plan", gold, "/", []string{"X-Plan", "lead", "Cookie", "plan=gold"}, false},
		{"the second when the first is missing", "plan header X-Plan\nplan cookie plan", gold, "/", []string{"Cookie", "plan=gold"}, true},
		{"the second when the first is empty", "plan header X-Plan\nplan cookie plan", gold, "/", []string{"X-Plan", " ", "Cookie", "plan=gold"}, true},
		{"the third", "plan header X-Plan\nplan cookie plan\nplan value gold", gold, "/", nil, true},
		{"interleaved", "plan header X-Plan\nuser_id header X-ID\nplan cookie plan\nuser_id cookie id\nplan value lead", gold, "/", []string{"X-ID", "x", "Cookie", "plan=gold; id=y"}, true},
		{"interleaved, the first wins", "plan header X-Plan\nuser_id header X-ID\nplan value lead\nuser_id value alice", user("bob"), "/", []string{"X-ID", "bob"}, true},

		{"oversized header", "plan header X-Plan\nplan cookie plan", gold, "/", []string{"X-Plan", long, "Cookie", "plan=gold"}, true},
		{"oversized cookie", "plan cookie plan\nplan value gold", gold, "/", []string{"Cookie", "plan=" + long}, true},
		{"oversized query", "plan query plan\nplan value gold", gold, "/?plan=" + long, nil, true},
		{"oversized value", "plan value {query.plan}\nplan value gold", gold, "/?plan=" + long, nil, true},

		{"a header is never expanded", "user_id header X-ID", user("{env.SECRET_WORD}"), "/", []string{"X-ID", "{env.SECRET_WORD}"}, true},
		{"a cookie is never expanded", "user_id cookie id", user("{env.SECRET_WORD}"), "/", []string{"Cookie", "id={env.SECRET_WORD}"}, true},
		{"a query is never expanded", "user_id query id", user("{env.SECRET_WORD}"), "/?id=%7Benv.SECRET_WORD%7D", nil, true},
		{"a header by placeholder is expanded once", "user_id value {header.X-ID}", user("{env.SECRET_WORD}"), "/", []string{"X-ID", "{env.SECRET_WORD}"}, true},
		{"nor with braces around", "user_id value <{header.X-ID}>", user("<{env.SECRET_WORD}>"), "/", []string{"X-ID", "{env.SECRET_WORD}"}, true},
		{"the config's own is", "user_id value {env.SECRET_WORD}", user("expanded"), "/", nil, true},

		{"phone", "device user_agent", `"devices": ["mobile"]`, "/", []string{"User-Agent", iPhone}, true},
		{"Android phone", "device user_agent", `"devices": ["mobile"]`, "/", []string{"User-Agent", pixel}, true},
		{"tablet", "device user_agent", `"devices": ["tablet"]`, "/", []string{"User-Agent", iPad}, true},
		{"Android tablet", "device user_agent", `"devices": ["tablet"]`, "/", []string{"User-Agent", galaxy}, true},
		{"desktop", "device user_agent", `"devices": ["desktop"]`, "/", []string{"User-Agent", firefox}, true},
		{"another desktop", "device user_agent", `"devices": ["desktop"]`, "/", []string{"User-Agent", chrome}, true},
		{"bot", "device user_agent", `"devices": ["bot"]`, "/", []string{"User-Agent", google}, true},
		{"command line", "device user_agent", `"devices": ["bot"]`, "/", []string{"User-Agent", "curl/8.11.0"}, true},
		{"a bot is no phone", "device user_agent", `"devices": ["mobile"]`, "/", []string{"User-Agent", google}, false},
		{"no agent", "device user_agent", `"devices": ["mobile", "tablet", "desktop", "bot"]`, "/", []string{"User-Agent", ""}, false},
		{"a header before the agent", "device header X-Device\ndevice user_agent", `"devices": ["mobile"]`, "/", []string{"X-Device", "mobile", "User-Agent", firefox}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := serve(t, site+"feature_flags {\ncontext {\n"+test.context+"\n}\n}\nrespond {http.feature_flags.it}\n}", fmt.Sprintf(`{"it": {"active": true, %s}}`, test.condition), nil)
			want := map[bool]string{true: "on", false: "off"}[test.want]
			if r := c.get(test.path, test.headers...); r.status != http.StatusOK || r.body != want {
				t.Errorf("status %d, %q, want %s", r.status, r.body, want)
			}
		})
	}
}

// Mistakes in the context block are told when the config is loaded.
func TestContextRefusesBadConfig(t *testing.T) {
	c := serve(t, site+"feature_flags {\ncontext {\nBLOCK\n}\n}\nrespond ok\n}", onlyAlice, map[string]string{"BLOCK": "user_id header X-ID"})
	for block, want := range map[string]string{
		"user_id":                        "user_id",
		"user_id header":                 "header",
		"user_id heater X-ID":            "heater",
		"user_id jwt sub":                "jwt",
		"region sticky":                  "sticky",
		"device user_agent X":            "user_agent",
		"user_id header X-ID again":      "header",
		"user_id sticky something":       "sticky",
		"user_id header X-ID {\nmore\n}": "block",
	} {
		c.words["BLOCK"] = block
		if err := c.load(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", block, err, want)
		}
	}
	if r := c.get("/"); r.body != "ok" { // the good one is still there
		t.Errorf("%d %q", r.status, r.body)
	}
}
