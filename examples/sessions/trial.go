package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/cookiejar"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/discovery"
)

const (
	servers = 3
	visits  = 10 // before the kill, and again after it
)

// trial is what came of one way.
type trial struct {
	before, after tally
	moved         uint64 // sessions
}

// tally is what came of some visits.
type tally struct {
	servers     map[string]bool // that answered
	first, last visit
	errors      int
}

// visit is what a server answers.
type visit struct {
	Server string // its address
	Count  int    // of the visits in the session, this one included
}

// try starts servers with their sessions in the given place, and visits them through evenkeel.
func try(ctx context.Context, sessions string, options ...evenkeel.Option) (trial, error) {
	var addresses discovery.Static
	processes := map[string]*process{}
	for range servers {
		p, err := startServer(ctx, sessions)
		if err != nil {
			return trial{}, err
		}
		defer p.kill()
		processes[p.address] = p
		addresses = append(addresses, p.address)
	}
	transport, err := evenkeel.New("http://shop.internal", append(options,
		evenkeel.WithResolver(addresses),
		evenkeel.WithBalancer(balancer.RoundRobin{}), // so that all three are seen to answer, if they may
	)...)
	if err != nil {
		return trial{}, err
	}
	defer transport.Close()
	jar, err := cookiejar.New(nil)
	if err != nil {
		return trial{}, err
	}
	user := &http.Client{Transport: transport, Jar: jar}

	var t trial
	t.before = visitAll(ctx, user)
	if p := processes[t.before.last.Server]; p != nil { // nil if no visit had an answer
		p.kill()
	}
	t.after = visitAll(ctx, user)
	t.moved = transport.Stats().Session.Moved
	return t, ctx.Err()
}

// visitAll makes the visits, one after the other.
func visitAll(ctx context.Context, user *http.Client) tally {
	t := tally{servers: map[string]bool{}}
	for range visits {
		v, err := visitOnce(ctx, user)
		if err != nil {
			t.errors++
			continue
		}
		if len(t.servers) == 0 {
			t.first = v
		}
		t.last = v
		t.servers[v.Server] = true
	}
	return t
}

func visitOnce(ctx context.Context, user *http.Client) (v visit, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://shop.internal/", http.NoBody)
	if err != nil {
		return v, err
	}
	resp, err := user.Do(req)
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return v, fmt.Errorf("%s answers %s", req.URL, resp.Status)
	}
	err = json.NewDecoder(resp.Body).Decode(&v)
	return v, err
}

// counter returns what the session counted, from the first visit to the last.
func (t tally) counter() string { return fmt.Sprintf("%d to %d", t.first.Count, t.last.Count) }
