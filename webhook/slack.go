package webhook

import (
	"strings"
	"time"
	"unicode/utf16"
)

// slackText is the most characters that a section takes. Of the 50 blocks that a message takes, four are used.
// https://docs.slack.dev/reference/block-kit/blocks/section-block
const slackText = 3000

type slackMessage struct {
	Text   string       `json:"text"` // For notifications, and where blocks cannot be shown.
	Blocks []slackBlock `json:"blocks"`
}

type slackBlock struct {
	Type     string      `json:"type"`
	Text     *slackItem  `json:"text,omitempty"`
	Elements []slackItem `json:"elements,omitempty"`
}

// slackItem is a text of type mrkdwn. Verbatim keeps Slack from making links of names, channels and addresses in it.
type slackItem struct {
	Type     string `json:"type"`
	Text     string `json:"text"`
	Verbatim bool   `json:"verbatim"`
}

func slackBody(e Event) []byte {
	headline := slackCut(sentence(e, func(name string) string { return "*" + slackEscape(name) + "*" }), slackText)
	m := slackMessage{Text: headline, Blocks: []slackBlock{slackSection(headline)}}
	if e.Reason != "" {
		m.Blocks = append(m.Blocks, slackSection(slackCut("Reason: "+slackEscape(e.Reason), slackText)))
	}
	if len(e.Data) > 0 {
		code := slackCut(slackEscape(string(e.Data)), slackText-2*len(slackFence))
		m.Blocks = append(m.Blocks, slackSection(slackFence+code+slackFence))
	}
	var about []string
	if e.By != "" {
		about = append(about, "by "+slackEscape(e.By))
	}
	if e.Instance != "" {
		about = append(about, "on "+slackEscape(e.Instance))
	}
	about = append(about, e.Time.Format(time.RFC3339))
	m.Blocks = append(m.Blocks, slackBlock{
		Type:     "context",
		Elements: []slackItem{{Type: "mrkdwn", Text: slackCut(strings.Join(about, ", "), slackText), Verbatim: true}},
	})
	return marshal(m)
}

func slackSection(text string) slackBlock {
	return slackBlock{Type: "section", Text: &slackItem{Type: "mrkdwn", Text: text, Verbatim: true}}
}

// slackEscape escapes the three characters that Slack gives a meaning to, so that nothing in an event can mention people
// or make links, and replaces what would begin or end a block of code. https://docs.slack.dev/messaging/formatting-message-text#escaping
func slackEscape(text string) string {
	return slackEscapes.Replace(text)
}

const slackFence = "```"

var slackEscapes = strings.NewReplacer(slackFence, "'''", "&", "&amp;", "<", "&lt;", ">", "&gt;")

// slackCut cuts an escaped text to limit characters, counted as UTF-16 does, which is never less than Slack counts. It
// cuts no escape in half.
func slackCut(text string, limit int) string {
	units, end := 0, 0 // End of what fits beside an ellipsis.
	for i := 0; i < len(text); {
		size, width := 0, 0
		for _, r := range text[i:] {
			size, width = len(string(r)), utf16.RuneLen(r)
			break
		}
		if text[i] == '&' {
			if n := strings.IndexByte(text[i:], ';'); n > 0 {
				size, width = n+1, n+1
			}
		}
		if units += width; units > limit {
			return text[:end] + "…"
		}
		if i += size; units < limit {
			end = i
		}
	}
	return text
}
