package webhook

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"time"
)

// PagerDutyURL is where a target of the format [PagerDuty] sends to when it names no URL.
const PagerDutyURL = "https://events.pagerduty.com/v2/enqueue"

// Limits of PagerDuty, in characters.
// https://developer.pagerduty.com/docs/events-api-v2/trigger-events/
const (
	pagerDutySummary = 1024
	pagerDutyKey     = 255
)

// pagerDutyTypes are what a target of PagerDuty gets that names no types: what opens an incident and what closes it.
var pagerDutyTypes = []string{Tripped, Reset, Degraded, Recovered}

type pagerDutyEvent struct {
	Action  string            `json:"event_action"`
	Key     string            `json:"dedup_key"`
	Client  string            `json:"client,omitempty"`
	Payload *pagerDutyPayload `json:"payload,omitempty"`
}

type pagerDutyPayload struct {
	Summary   string           `json:"summary"`
	Source    string           `json:"source"`
	Severity  string           `json:"severity"`
	Timestamp string           `json:"timestamp"`
	Component string           `json:"component,omitempty"`
	Class     string           `json:"class,omitempty"`
	Details   pagerDutyDetails `json:"custom_details"`
}

type pagerDutyDetails struct {
	ID string `json:"id"`
	cloudData
}

// pagerDutyBody leaves the routing key out, see seal.
func pagerDutyBody(e Event) []byte {
	p := pagerDutyEvent{Action: "trigger", Client: client}
	severity := "info"
	switch e.Type {
	case Tripped:
		p.Key, severity = pagerDutyIncident("flag", e.Flag), "critical"
	case Degraded:
		p.Key, severity = pagerDutyIncident("degraded", e.Flag), "warning"
	case Reset:
		return marshal(pagerDutyEvent{Action: "resolve", Key: pagerDutyIncident("flag", e.Flag)})
	case Recovered:
		return marshal(pagerDutyEvent{Action: "resolve", Key: pagerDutyIncident("degraded", e.Flag)})
	default:
		p.Key = client + "/event/" + e.ID // Would else change the severity of an open incident.
	}
	summary := sentence(e, func(name string) string { return `"` + name + `"` })
	if e.Reason != "" {
		summary += " Reason: " + e.Reason
	}
	p.Payload = &pagerDutyPayload{
		Summary:   cutRunes(summary, pagerDutySummary),
		Source:    client,
		Severity:  severity,
		Timestamp: e.Time.Format(time.RFC3339Nano),
		Component: e.Flag,
		Class:     e.Type,
		Details: pagerDutyDetails{
			ID:        e.ID,
			cloudData: cloudData{Flag: e.Flag, By: e.By, Reason: e.Reason, Instance: e.Instance, Details: e.Data},
		},
	}
	if e.Instance != "" {
		p.Payload.Source = client + "/" + e.Instance
	}
	return marshal(p)
}

// pagerDutyIncident is the dedup_key of the incident that a flag has in the whole fleet. What trips and what degrades are
// different incidents: that a flag's state can be written again does not mean that the flag is on.
func pagerDutyIncident(kind, flag string) string {
	key := client + "/" + kind + "/" + flag
	if len(key) > pagerDutyKey {
		sum := sha256.Sum256([]byte(flag))
		key = client + "/" + kind + "/sha256:" + hex.EncodeToString(sum[:])
	}
	return key
}

// seal puts the routing key into a body.
func seal(body []byte, routingKey string) []byte {
	rest, ok := bytes.CutPrefix(body, []byte("{"))
	if !ok {
		return body
	}
	key, _ := json.Marshal(routingKey) // A string can be marshalled.
	return slices.Concat([]byte(`{"routing_key":`), key, []byte(","), rest)
}

// cutRunes cuts text to limit characters.
func cutRunes(text string, limit int) string {
	if n := []rune(text); len(n) > limit {
		return string(n[:limit-1]) + "…"
	}
	return text
}
