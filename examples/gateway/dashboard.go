package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	// dashboardTimeout is how long the page waits: a part that takes longer is left out.
	dashboardTimeout = 2 * time.Second
	// partSize is the most that a part may be.
	partSize = 1 << 20
)

// dashboardParts are what the page shows, and which service has it.
var dashboardParts = []struct{ name, url string }{
	{"profile", "http://users/users/me"},
	{"orders", "http://orders/orders/"},
	{"chat", "http://chat/chat"},
}

// part is one service's contribution, or the reason why there is none.
type part struct {
	Data        json.RawMessage `json:"data,omitempty"`
	Unavailable string          `json:"unavailable,omitempty"`

	cookies []string // with which the service keeps the caller at its server
}

// dashboard asks all services at once, and shows what it gets: a service that is down costs its part
// and not the page.
func (g *gateway) dashboard(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), dashboardTimeout)
	defer cancel()
	parts := make([]part, len(dashboardParts))
	var all sync.WaitGroup
	for i, p := range dashboardParts {
		all.Go(func() { parts[i] = g.part(ctx, r, p.url) })
	}
	all.Wait()

	status := http.StatusServiceUnavailable
	page := map[string]part{}
	for i, p := range parts {
		page[dashboardParts[i].name] = p
		if p.Unavailable == "" {
			status = http.StatusOK
		}
		for _, cookie := range p.cookies {
			w.Header().Add("Set-Cookie", cookie)
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(page) // an error means that the client has gone
}

// part gets one part, in the name of the caller and at the server where the caller's state is.
func (g *gateway) part(ctx context.Context, r *http.Request, url string) part {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return part{Unavailable: err.Error()}
	}
	req.Header[userHeader], req.Header["Cookie"] = r.Header[userHeader], r.Header["Cookie"]
	resp, err := g.services.RoundTrip(req)
	if err != nil {
		return part{Unavailable: http.StatusText(statusOf(err))}
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, partSize))
	switch {
	case resp.StatusCode != http.StatusOK:
		return part{Unavailable: fmt.Sprintf("the service says %d", resp.StatusCode)}
	case err != nil || !json.Valid(data):
		return part{Unavailable: "the answer is broken"}
	}
	return part{Data: data, cookies: resp.Header["Set-Cookie"]}
}
