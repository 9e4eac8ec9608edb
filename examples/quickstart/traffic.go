package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	rate    = 200 // calls per second, at most
	callers = 8
	// patience is what a caller grants a call. evenkeel fits its attempts into
	// the deadline that it finds in the request's context.
	patience = 5 * time.Second
)

// traffic is what callers of the service do. They know nothing of evenkeel: they
// have an http.Client.
type traffic struct {
	client  *http.Client
	failure func(error)

	number, calls, failed atomic.Int64
}

// start sends GETs and POSTs in turn, at a steady rate, until the function that
// it returns is called. That one waits for the calls under way.
func (t *traffic) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	pace := time.NewTicker(time.Second / rate)
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case <-pace.C:
					t.call()
				}
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
		pace.Stop()
	}
}

// call makes a call and counts it as the caller sees it.
func (t *traffic) call() {
	var err error
	if t.number.Add(1)%2 == 1 {
		err = t.send(http.MethodGet, nil)
	} else {
		err = t.send(http.MethodPost, strings.NewReader(`{"name": "Ada"}`))
	}
	t.calls.Add(1)
	if err != nil {
		t.failed.Add(1)
		t.failure(err)
	}
}

func (t *traffic) send(method string, body io.Reader) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://users/", body)
	if err != nil {
		return err
	}
	if method == http.MethodPost {
		// A GET may reach two servers, so it is repeated when its server dies
		// half-way. A POST may not: without this header it would fail then,
		// unless it was certain that no server has seen it. By the header the
		// caller promises that the servers know a POST that comes twice.
		req.Header.Set("Idempotency-Key", rand.Text())
	}
	resp, err := t.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("%s: %s", method, resp.Status)
	}
	return nil
}
