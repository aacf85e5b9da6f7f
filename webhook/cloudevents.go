package webhook

import (
	"encoding/json"
	"net/url"
	"time"
)

// cloudEvent is a CloudEvents 1.0 event in structured JSON mode.
// https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
type cloudEvent struct {
	SpecVersion     string    `json:"specversion"`
	ID              string    `json:"id"`
	Source          string    `json:"source"`
	Type            string    `json:"type"`
	Subject         string    `json:"subject,omitempty"` // Must not be empty where it is.
	Time            string    `json:"time"`
	DataContentType string    `json:"datacontenttype"`
	Data            cloudData `json:"data"`
}

type cloudData struct {
	Flag     string          `json:"flag,omitempty"`
	By       string          `json:"by,omitempty"`
	Reason   string          `json:"reason,omitempty"`
	Instance string          `json:"instance,omitempty"`
	Details  json.RawMessage `json:"details,omitempty"`
}

const (
	client = "caddy-feature-flags"
	source = "/" + client
)

func cloudEventsBody(e Event) []byte {
	c := cloudEvent{
		SpecVersion:     "1.0",
		ID:              e.ID,
		Source:          source,
		Type:            e.Type,
		Subject:         e.Flag,
		Time:            e.Time.Format(time.RFC3339Nano),
		DataContentType: "application/json",
		Data:            cloudData{Flag: e.Flag, By: e.By, Reason: e.Reason, Instance: e.Instance, Details: e.Data},
	}
	if e.Instance != "" {
		c.Source += "/" + url.PathEscape(e.Instance) // A URI reference.
	}
	if c.Type == "" {
		c.Type = "feature_flags.unknown" // Must not be empty.
	}
	return marshal(c)
}
