package caddymodule

import "strings"

// deviceOf reads a User-Agent: mobile, tablet, desktop or bot; "" for none.
// Tablets that call themselves desktops (iPadOS since 13) cannot be told.
func deviceOf(userAgent string) string {
	if userAgent == "" {
		return ""
	}
	if len(userAgent) > 1024 {
		userAgent = userAgent[:1024]
	}
	ua := strings.ToLower(userAgent)
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(ua, w) {
				return true
			}
		}
		return false
	}
	switch {
	case has("bot", "crawl", "spider", "slurp", "facebookexternalhit", "headlesschrome", "curl/", "wget/", "python-requests", "go-http-client", "monitor", "preview"):
		return "bot"
	case has("ipad", "tablet", "kindle", "silk/", "playbook") || has("android") && !has("mobile"):
		return "tablet"
	case has("mobi", "iphone", "ipod", "android", "windows phone", "opera mini", "blackberry"):
		return "mobile"
	}
	return "desktop"
}
