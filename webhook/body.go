package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// MaxBody is the size in bytes that no body of a request exceeds.
const MaxBody = 64 << 10

// render returns the body of an event, which must be clean, without any secret of a target.
func render(f Format, e Event) []byte {
	body := f.render(e)
	// The routing key is put into a body later, see seal.
	if limit := MaxBody - maxRoutingKey - len(`"routing_key":"",`); len(body) > limit {
		e.Data = tooLarge(len(e.Data))
		body = f.render(e)
	}
	return body
}

func (f Format) render(e Event) []byte {
	switch f {
	case Slack:
		return slackBody(e)
	case PagerDuty:
		return pagerDutyBody(e)
	default:
		return cloudEventsBody(e)
	}
}

// mediaType is the Content-Type of the bodies of a format.
func (f Format) mediaType() string {
	if f == CloudEvents {
		return "application/cloudevents+json; charset=utf-8"
	}
	return "application/json"
}

// marshal is JSON without the escapes that only HTML needs.
func marshal(v any) []byte {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		// Only a RawMessage could fail, and those of a clean event are JSON.
		panic("webhook: " + err.Error())
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}

// sentence says in plain words what happened. quote marks the name of the flag.
func sentence(e Event, quote func(string) string) string {
	flag := "A feature flag"
	if e.Flag != "" {
		flag = "Feature flag " + quote(e.Flag)
	}
	switch e.Type {
	case Tripped:
		return flag + " was switched off by its kill switch."
	case Held:
		return flag + " is held at its present percentage."
	case Reset:
		return flag + " was reset and follows its definition again."
	case Overridden:
		return flag + " was overridden by hand."
	case Advanced:
		return flag + " went to the next step of its rollout."
	case Reloaded:
		return "The feature flags were reloaded."
	case ReloadFailed:
		return "The feature flags could not be reloaded. The last good ones stay in force."
	case Degraded:
		if e.Flag == "" {
			return "The feature flags are degraded. Decisions go on."
		}
		return flag + " is degraded. Decisions go on."
	case Recovered:
		if e.Flag == "" {
			return "The feature flags have recovered."
		}
		return flag + " has recovered."
	default:
		return fmt.Sprintf("%s: %s.", flag, quote(e.Type))
	}
}
