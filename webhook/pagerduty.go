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
	switch kind := incidentOf(e.Type); {
	case e.Type == Reset || e.Type == Recovered:
		return marshal(pagerDutyEvent{Action: "resolve", Key: pagerDutyIncident(kind, e)})
	case e.Type == Tripped:
		p.Key, severity = pagerDutyIncident(kind, e), "critical"
	case e.Type == Degraded && lasts(e.Data):
		p.Key, severity = pagerDutyIncident(kind, e), "warning"
	case e.Type == Degraded:
		p.Key, severity = client+"/event/"+e.ID, "warning"
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

// incidentOf is the kind of incident that events of a type open or close, "" for others. What trips and what degrades are
// different ones: that state can be written again does not mean that a flag is on.
func incidentOf(eventType string) string {
	switch eventType {
	case Tripped, Reset:
		return "flag"
	case Degraded, Recovered:
		return "degraded"
	}
	return ""
}

// lasts tells whether what is degraded stays so until it has recovered. A damaged file that was set aside does not: no
// event will follow.
func lasts(data json.RawMessage) bool {
	var health struct {
		Degraded *bool `json:"degraded"`
	}
	return json.Unmarshal(data, &health) != nil || health.Degraded == nil || *health.Degraded
}

// pagerDutyIncident is the dedup_key of an incident: one of a flag in the whole fleet, and one of each instance whose
// disk is in trouble.
func pagerDutyIncident(kind string, e Event) string {
	of := e.Flag
	if kind == "degraded" {
		of = e.Instance + "/" + e.Flag
	}
	key := client + "/" + kind + "/" + of
	if len(key) > pagerDutyKey {
		sum := sha256.Sum256([]byte(of))
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
