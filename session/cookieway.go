package session

import (
	"net/http"
	"time"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/hashkey"
)

// cookieWay is [Cookie] at work.
type cookieWay struct {
	Cookie
	signers []*signer // the first one signs, all verify
	known   []known   // what they make of the endpoints
}

// known is the endpoints as one signer knows them.
type known struct {
	tags map[string]tag
	ids  map[tag]string
}

// newCookieWay puts cookies to work. What the way before has worked out is used again: a tag costs a
// hash for each endpoint.
func newCookieWay(c Cookie, target string, endpoints []discovery.Endpoint, old *cookieWay) *cookieWay {
	w := &cookieWay{Cookie: c}
	for _, secret := range []Secret{c.Secret, c.Previous} {
		if secret == (Secret{}) {
			continue
		}
		s, before := newSigner(secret, target, c.Name), known{}
		if i := old.signs(secret, c.Name); i >= 0 {
			s, before = old.signers[i], old.known[i]
		}
		k := known{make(map[string]tag, len(endpoints)), make(map[tag]string, len(endpoints))}
		for i := range endpoints {
			id := endpoints[i].Key().ID
			t, ok := before.tags[id]
			if !ok {
				t = s.tag(id)
			}
			k.tags[id], k.ids[t] = t, id
		}
		w.signers, w.known = append(w.signers, s), append(w.known, k)
	}
	return w
}

// signs returns which signer is that of a secret, -1 if there is none.
func (w *cookieWay) signs(secret Secret, name string) int {
	switch {
	case w == nil || w.Name != name:
	case w.Secret.Equal(secret):
		return 0
	case w.Previous.Equal(secret):
		return 1
	}
	return -1
}

// mostCookies bounds how many cookies with the name are tried: there is more than one if another host
// of the domain, or another path, has set one too.
const mostCookies = 4

func (w *cookieWay) begin(v *visit, req *http.Request) {
	v.secure = w.secure(req)
	now := v.keeper.clock.Now()
	var refused error
	cookies := hashkey.Cookies{Lines: req.Header["Cookie"], Name: w.Name}
	for range mostCookies {
		value, ok := cookies.Next()
		if !ok {
			break
		}
		err := w.open(v, value, now)
		if err == nil {
			return
		}
		if refused == nil {
			refused = err
		}
	}
	if refused != nil {
		v.keeper.counts.rejected.Add(1)
		v.keeper.tell(Event{Kind: Rejected, Cause: refused.Error()})
	}
}

// mostAhead is how far the clock of whoever issued a cookie may be ahead of ours, as HAProxy has it.
const mostAhead = 24 * time.Hour

// open finds out where the call belongs by the value of a cookie.
func (w *cookieWay) open(v *visit, value string, now time.Time) (err error) {
	for i, s := range w.signers {
		t, issued, failure := s.open(value)
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
		v.renew = i > 0 || (w.MaxAge > 0 && age > w.MaxAge/4)
		id, ok := w.known[i].ids[t]
		if !ok {
			id = gone
		}
		v.belongs(id)
		return nil
	}
	return err
}

// claim implements way: a cookie is set when an endpoint has answered, and not before.
func (w *cookieWay) claim(*visit, string, string) string { return "" }

func (w *cookieWay) end(v *visit, resp *http.Response, endpoint string, good bool) {
	home := v.home()
	if !good || (home == endpoint && !v.renew) || sets(resp.Header, w.Name) {
		return
	}
	t, ok := w.known[0].tags[endpoint]
	if !ok { // it has answered, and left since
		t = w.signers[0].tag(endpoint)
	}
	now := v.keeper.clock.Now()
	w.issue(resp, w.signers[0].seal(t, now), now, v.secure)
	if home != endpoint {
		v.pinned(home, endpoint, v.moving())
	}
}
