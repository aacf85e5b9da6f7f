package webhook_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/seed-6adbc061/caddy-feature-flags/webhook"
)

// A receiver checks what it gets before it reads it.
func ExampleVerify() {
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	done := make(chan string, 1)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, webhook.MaxBody))
		if err == nil {
			err = webhook.Verify(secret, r.Header, body, time.Now(), 0)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		done <- "verified " + r.Header.Get("webhook-id")
	}))
	defer receiver.Close()

	sender := webhook.Open("", webhook.Options{}) // In memory; a path keeps what waits over a restart.
	defer sender.Close()
	if err := sender.Configure([]webhook.Target{{URL: receiver.URL, Secret: secret}}); err != nil {
		fmt.Println(err)
		return
	}
	sender.Send(webhook.Event{ID: "evt_1", Type: webhook.Tripped, Flag: "checkout"})
	fmt.Println(<-done)
	// Output: verified evt_1
}
