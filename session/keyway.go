package session

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/hashkey"
	"github.com/evenkeel-go/evenkeel/internal/node"
)

// keyWay is [Key] at work.
type keyWay struct {
	store Store
	from  hashkey.Extractor
}

func (w *keyWay) begin(v *visit, req *http.Request) {
	key := KeyOf(req)
	if key == "" {
		key, _ = w.from.Value(req)
	}
	w.lookup(v, key)
}

// lookup finds out where the call belongs by its key, if it has one.
func (w *keyWay) lookup(v *visit, key string) {
	if v.key = key; key == "" {
		return
	}
	endpoint, ok := v.ask(w.store, func(ctx context.Context) (string, error) { return w.store.Lookup(ctx, key) })
	switch {
	case endpoint != "":
		v.belongs(endpoint)
	case !ok && v.work.Strict && v.failed.Load():
		v.refusal = fmt.Errorf("%w: the store cannot say which one it is", ErrUnavailable)
	case !ok && v.work.Strict: // the caller has gone
		v.refusal = context.Cause(v.record)
	}
}

// claim implements way: of many calls with one key, the first one decides where all of them go, before
// any of them is sent.
func (w *keyWay) claim(v *visit, endpoint, cause string) string {
	if v.key == "" {
		return ""
	}
	home := v.home()
	now, ok := w.pin(v, home, endpoint)
	if !ok || now == "" {
		return ""
	}
	ours := now == endpoint
	if ours {
		v.pinned(home, endpoint, cause)
	}
	// Nothing is lost yet if a session that has just begun here has to go elsewhere.
	v.pin.Store(&node.Pin{ID: now, Strict: v.work.Strict && !ours, DrainFor: v.work.DrainFor})
	return now
}

// pin asks the store to pin the call's key.
func (w *keyWay) pin(v *visit, from, to string) (now string, ok bool) {
	return v.ask(w.store, func(ctx context.Context) (string, error) { return w.store.Pin(ctx, v.key, from, to) })
}

func (w *keyWay) end(v *visit, _ *http.Response, endpoint string, good bool) {
	home := v.home()
	if v.key == "" || !good || home == endpoint || (home == "" && v.failed.Load()) {
		return
	}
	if now, ok := w.pin(v, home, endpoint); ok && now == endpoint {
		v.pinned(home, endpoint, v.moving())
	}
}

// learnWay is [Learn] at work.
type learnWay struct {
	Learn
	keyWay
}

func (w *learnWay) begin(v *visit, req *http.Request) {
	key, _ := w.from.Value(req)
	w.lookup(v, key)
}

func (w *learnWay) end(v *visit, resp *http.Response, endpoint string, good bool) {
	learnt := w.learnt(resp, v.keeper.clock.Now)
	if learnt == "" || learnt == v.key {
		w.keyWay.end(v, resp, endpoint, good || learnt != "")
		return
	}
	v.key = learnt // it is the session's from now on
	now, ok := w.pin(v, "", endpoint)
	if ok && now != endpoint {
		_, ok = w.pin(v, now, endpoint) // who set it last has it
	}
	if ok {
		v.pinned("", endpoint, "")
	}
}

// learnt returns the value that the answer sets, "" if it sets none or takes it back. Of several, callers
// keep the last one.
func (w *learnWay) learnt(resp *http.Response, now func() time.Time) (value string) {
	if w.Header != "" {
		return resp.Header.Get(w.Header)
	}
	for _, line := range resp.Header["Set-Cookie"] {
		if !strings.Contains(line, w.Cookie) {
			continue
		}
		c, err := http.ParseSetCookie(line)
		if err != nil || c.Name != w.Cookie {
			continue
		}
		value = c.Value
		if c.MaxAge < 0 || (c.MaxAge == 0 && !c.Expires.IsZero() && !c.Expires.After(now())) { // RFC 6265, section 5.3
			value = ""
		}
	}
	return value
}
