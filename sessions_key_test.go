package evenkeel_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/session"
)

// keyed makes a call with a key, in a header if that has a name, else in the context.
func (h *theatre) keyed(t *testing.T, tr *evenkeel.Transport, header, key string) string {
	t.Helper()
	req := getRequest(t, "http://users/")
	if header == "" {
		req = req.WithContext(session.WithKey(req.Context(), key))
	} else {
		req.Header.Set(header, key)
	}
	_, body := fetch(t, tr, req)
	return body
}

// together makes calls at once, and returns how many each endpoint has answered.
func (h *theatre) together(t *testing.T, n int, call func(i int) string) map[string]int {
	t.Helper()
	var all sync.WaitGroup
	var got counter
	for i := range n {
		all.Go(func() { got.add(call(i)) })
	}
	all.Wait()
	return got.n
}

// Given a hundred first calls with one key at once, then all of them go to one endpoint, and no other has
// got any of them; also if they come by two transports that share a store.
func TestSession_FirstCallsGoTogether_S02(t *testing.T) {
	addresses := []string{"a:80", "b:80", "c:80", "d:80", "e:80"}
	for _, row := range []struct {
		name   string
		shared bool
		strict bool
		more   evenkeel.Option
	}{
		{"soft", false, false, noBreaker},
		{"strict", false, true, noBreaker},
		{"hedged", false, false, evenkeel.WithRetry(hedging)},
		{"by latency", false, false, evenkeel.WithBalancer(balancer.PeakEWMA{})},
		{"two transports", true, false, noBreaker},
		{"two transports, strict", true, true, evenkeel.WithBalancer(balancer.Random{})},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				table, err := session.NewTable(session.TableConfig{})
				require.NoError(t, err)
				key := session.Key{From: []session.Property{{Header: "X-User"}}}
				if row.shared {
					key.Store = table
				}
				p := session.Policy{By: key, Strict: row.strict}
				h := newTheatre(t, p, addresses, row.more)
				transports := []*evenkeel.Transport{h.tr, h.tr}
				if row.shared {
					list := newPushed()
					transports[1] = h.transport(t, list, evenkeel.WithSession(p), row.more)
					list.push(listed(addresses...)...)
				}
				h.take(20*time.Millisecond, addresses...)
				used := map[string]bool{}
				for round := range 20 {
					before := map[string]int{}
					for _, a := range addresses {
						before[a] = h.requests(a)
					}
					got := h.together(t, 100, func(i int) string {
						return h.keyed(t, transports[i%2], []string{"", "X-User"}[round%2], fmt.Sprint("key", round))
					})
					require.Len(t, got, 1)
					for a, n := range got {
						used[a] = true
						assert.Equal(t, 100, n)
						before[a] += 100
					}
					for _, a := range addresses {
						assert.Equal(t, before[a], h.requests(a), "nobody else has got any")
					}
				}
				assert.Greater(t, len(used), 1, "keys are spread")
				assert.Zero(t, h.tr.Stats().Session.Moved)
				if row.shared {
					assert.Equal(t, 20, table.Len())
				} else {
					assert.Equal(t, 20, h.tr.Stats().Session.Sessions)
				}
			})
		})
	}
}

// Given that the one endpoint to which all first calls go fails, then all are served, and the session ends
// up in one place.
func TestSession_FirstCallsFailOverTogether_S01(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTheatre(t, session.Policy{By: session.Key{}}, []string{"a:80", "b:80", "c:80"})
		for round := range 9 {
			h.fail(refuses, "a:80")
			key := fmt.Sprint("key", round)
			got := h.together(t, 50, func(int) string { return h.keyed(t, h.tr, "", key) })
			assert.Zero(t, got["a:80"])
			h.fail(0, "a:80")
			at := h.keyed(t, h.tr, "", key)
			assert.NotEqual(t, "a:80", at)
			for range 5 {
				assert.Equal(t, at, h.keyed(t, h.tr, "", key))
			}
		}
	})
}

// Given a Table as the store of two transports, then both agree: who begins here is known there, and so is
// who has moved.
func TestSession_SharedTable_S06(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, err := session.NewTable(session.TableConfig{})
		require.NoError(t, err)
		p := session.Policy{By: session.Key{Store: table}}
		addresses := []string{"a:80", "b:80", "c:80"}
		h := newTheatre(t, p, addresses)
		list := newPushed()
		other := h.transport(t, list, evenkeel.WithSession(p))
		list.push(listed(addresses...)...)
		at := map[string]string{}
		for i := range 30 {
			key := fmt.Sprint("key", i)
			at[key] = h.keyed(t, []*evenkeel.Transport{h.tr, other}[i%2], "", key)
		}
		for key, a := range at {
			assert.Equal(t, a, h.keyed(t, h.tr, "", key))
			assert.Equal(t, a, h.keyed(t, other, "", key))
		}
		h.fail(breaks, "a:80")
		for key, a := range at {
			at[key] = h.keyed(t, h.tr, "", key)
			assert.Equal(t, a != "a:80", at[key] == a)
		}
		h.fail(0, "a:80")
		for key, a := range at {
			assert.Equal(t, a, h.keyed(t, other, "", key))
		}
	})
}

// A call without a key belongs nowhere.
func TestSession_WithoutAKey(t *testing.T) {
	for _, by := range []session.Kind{session.Key{}, session.Hash{}, session.Key{From: []session.Property{{Header: "X-User"}}}} {
		synctest.Test(t, func(t *testing.T) {
			h := newTheatre(t, session.Policy{By: by}, []string{"a:80", "b:80", "c:80"})
			got := map[string]int{}
			for range 30 {
				got[h.keyed(t, h.tr, "", "")]++
			}
			assert.Equal(t, map[string]int{"a:80": 10, "b:80": 10, "c:80": 10}, got, "in turn, as the balancer says")
			assert.Zero(t, h.tr.Stats().Session)
		})
	}
}

// Given Hash, then a key stays at its endpoint, wherever it is told, and is back when that is back.
func TestSession_Hash_S01_S05(t *testing.T) {
	addresses := []string{"a:80", "b:80", "c:80", "d:80"}
	for _, row := range []struct {
		name string
		down func(h *theatre)
	}{
		{"draining", func(h *theatre) { h.set("a:80 draining", "b:80", "c:80", "d:80") }},
		{"removed", func(h *theatre) { h.set("b:80", "c:80", "d:80") }},
		{"refuses", func(h *theatre) { h.fail(refuses, "a:80") }},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newTheatre(t, session.Policy{By: session.Hash{From: []session.Property{{Header: "X-User"}, {Query: "user"}}}}, addresses)
				at, used := map[string]string{}, map[string]int{}
				for i := range 100 {
					key := fmt.Sprint("user", i)
					at[key] = h.keyed(t, h.tr, "", key)
					used[at[key]]++
				}
				assert.Len(t, used, 4)
				check := func(down bool) {
					t.Helper()
					for key, a := range at {
						got := h.keyed(t, h.tr, "", key)
						if !down || a != "a:80" {
							assert.Equal(t, a, got)
						} else {
							assert.NotEqual(t, "a:80", got, "it moves")
						}
						assert.Equal(t, got, h.keyed(t, h.tr, "X-User", key))
						_, body := fetch(t, h.tr, getRequest(t, "http://users/?user="+key))
						assert.Equal(t, got, body)
					}
				}
				check(false)
				row.down(h)
				check(true)
				h.fail(0, "a:80")
				h.set(addresses...)
				check(false)
				assert.Empty(t, h.told())
			})
		})
	}
}

// The key in the context comes before what is in the request.
func TestSession_KeyOfTheContextFirst(t *testing.T) {
	for _, by := range []session.Kind{
		session.Key{From: []session.Property{{Header: "X-User"}}}, session.Hash{From: []session.Property{{Header: "X-User"}}},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newTheatre(t, session.Policy{By: by}, strings.Fields("a:80 b:80 c:80 d:80 e:80"))
			for i := range 20 {
				key := fmt.Sprint("key", i)
				at := h.keyed(t, h.tr, "", key)
				for k := range 5 {
					req := getRequest(t, "http://users/")
					req.Header = http.Header{"X-User": {fmt.Sprint("somebody else ", k)}}
					_, body := fetch(t, h.tr, req.WithContext(session.WithKey(req.Context(), key)))
					assert.Equal(t, at, body)
				}
			}
		})
	}
}
