package session

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/hashkey"
)

// cookieWay is [Cookie] at work.
type cookieWay struct {
	Cookie
	known []*known // the first one signs, all verify
	moves *moves
}

// known is the endpoints as one secret makes them known. It outlives policies and updates.
type known struct {
	*signer
	ids  atomic.Pointer[map[tag]string] // never changed once it is there
	tags map[string]tag                 // the other way round; guarded by the keeper's lock
}

// newCookieWay puts cookies to work. What the way before has worked out is used again.
func newCookieWay(c Cookie, target string, endpoints []discovery.Endpoint, old *cookieWay, m *moves) *cookieWay {
	if c.Name == "" {
		c.Name = defaultName(target)
	}
	w := &cookieWay{Cookie: c, moves: m}
	for _, secret := range []Secret{c.Secret, c.Previous} {
		if secret == (Secret{}) {
			continue
		}
		k := old.knownBy(secret, c.Name)
		if k == nil {
			k = &known{signer: newSigner(secret, target, c.Name), tags: map[string]tag{}}
			k.ids.Store(&map[tag]string{})
		}
		k.update(endpoints)
		w.known = append(w.known, k)
	}
	return w
}

// defaultName returns the name of the cookie of a target, so that services behind one site do not take
// each other's away.
func defaultName(target string) string {
	if target == "" {
		return "evenkeel"
	}
	sum := sha256.Sum256([]byte(target))
	return "evenkeel-" + hex.EncodeToString(sum[:4])
}

// knownBy returns what is known by a secret, nil if that was not used.
func (w *cookieWay) knownBy(secret Secret, name string) *known {
	switch {
	case w == nil || w.Name != name:
	case w.Secret.Equal(secret):
		return w.known[0]
	case w.Previous.Equal(secret) && secret != (Secret{}):
		return w.known[1]
	}
	return nil
}

// update makes these the endpoints. Only new ones cost a hash.
func (k *known) update(endpoints []discovery.Endpoint) {
	ids := map[tag]string(nil) // a copy, once there is something to change
	change := func() map[tag]string {
		if ids == nil {
			ids = maps.Clone(*k.ids.Load())
		}
		return ids
	}
	for i := range endpoints {
		id := endpoints[i].Key().ID
		if _, ok := k.tags[id]; !ok {
			t := k.tag(id)
			k.tags[id], change()[t] = t, id
		}
	}
	if len(k.tags) > len(endpoints) { // else they are mostly just these
		stay := make(map[string]bool, len(endpoints))
		for i := range endpoints {
			stay[endpoints[i].Key().ID] = true
		}
		for id, t := range k.tags {
			if !stay[id] {
				delete(k.tags, id)
				delete(change(), t)
			}
		}
	}
	if ids != nil {
		k.ids.Store(&ids)
	}
}

// mostCookies bounds how many cookies with the name are looked at. There is more than one if another host
// of the domain, or another path, has set one too.
const mostCookies = 16

// begin implements way. Of several cookies, the one that was issued last counts, of those whose endpoint is
// known if there are such: browsers send one with a longer path first, however old it is.
func (w *cookieWay) begin(v *visit, req *http.Request) {
	v.secure = w.secure(req)
	now := v.keeper.clock.Now()
	var best, found reading
	var refused error
	cookies := hashkey.Cookies{Lines: req.Header["Cookie"], Name: w.Name}
	for range mostCookies {
		value, ok := cookies.Next()
		if !ok {
			break
		}
		err := w.read(&found, value, now)
		switch {
		case err != nil && refused == nil:
			refused = err
		case err == nil && found.betterThan(&best):
			best = found
		}
	}
	switch {
	case best.value != "":
		v.renew, v.key = best.renew, best.value
		v.belongs(best.endpoint)
		if moved := w.moves.of(v.key); moved != "" && moved != best.endpoint && !v.work.Strict { //nolint:contextcheck // a table does not wait
			v.renew = true // it has moved, and its caller has not heard of that yet
			v.join(moved)
			because := "moved with another call"
			if best.endpoint == gone {
				because = "removed"
			}
			v.cause.Store(&because)
		}
	case refused != nil:
		v.keeper.counts.rejected.Add(1)
		v.keeper.tell(Event{Kind: Rejected, Cause: refused.Error()})
	}
}

// reading is what a valid cookie says.
type reading struct {
	value    string
	endpoint string // gone if it is not known any more
	issued   time.Time
	renew    bool
}

func (r *reading) betterThan(o *reading) bool {
	if known := r.endpoint != gone; o.value != "" && known != (o.endpoint != gone) {
		return known
	}
	return o.value == "" || r.issued.After(o.issued)
}

// mostAhead is how far the clock of whoever issued a cookie may be ahead of ours, as HAProxy has it.
const mostAhead = 24 * time.Hour

// read reads the value of a cookie.
func (w *cookieWay) read(r *reading, value string, now time.Time) (err error) {
	for i, k := range w.known {
		t, issued, failure := k.open(value)
		if failure != nil {
			err = failure
			continue
		}
		age := now.Sub(issued)
		switch {
		case age < -mostAhead:
			return errFuture
		case w.MaxAge > 0 && age >= w.MaxAge+time.Second: // the date is without its part of a second
			return errExpired
		}
		*r = reading{value: value, endpoint: gone, issued: issued, renew: i > 0 || (w.MaxAge > 0 && age > w.MaxAge/4)}
		if id, ok := (*k.ids.Load())[t]; ok {
			r.endpoint = id
		}
		return nil
	}
	return err
}

// claim implements way: of the calls with a cookie whose endpoint cannot take them, the first decides where
// all go. A new session has no name yet.
func (w *cookieWay) claim(v *visit, endpoint, _ string) (string, error) {
	home := v.home()
	if home == "" {
		return "", nil
	}
	before := "" // where they went of late, which may be back where they were
	if home != v.first.ID || w.moves.of(v.key) == home {
		before = home
	}
	now := w.moves.claim(v.key, before, endpoint)
	v.join(now)
	return now, nil
}

func (w *cookieWay) end(v *visit, resp *http.Response, endpoint string, good bool) {
	named, home := v.first.ID, v.home()
	now, before := "", named // where the session is, and who has answered it last
	if named != "" {
		now, before = w.moves.last(v.key, named)
	}
	late := home == endpoint && now != "" && now != endpoint // the session has gone on since the call was sent
	told := named == endpoint && home == endpoint && before == endpoint && !v.renew
	if !good || late || told || sets(resp.Header, w.Name) {
		return
	}
	at := v.keeper.clock.Now()
	signer := w.known[0].signer
	w.issue(resp, signer.seal(signer.tag(endpoint), at), at, v.secure)
	switch {
	case named == "":
		v.pinned("", endpoint, v.moving())
	case (before != endpoint || home != endpoint) && w.moves.moved(v.key, endpoint):
		v.pinned(before, endpoint, v.moving())
	}
}
