package session

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/discovery"
)

// newTestWay returns cookies at work for a:80, b:80 and c:80.
func newTestWay(c Cookie) *cookieWay {
	return newCookieWay(named(c), target, listed("a:80", "b:80", "c:80"), nil, nil)
}

// opened returns where a call with this value belongs, and whether it gets a new one.
func (w *cookieWay) opened(value string, now time.Time) (home string, renew bool, err error) {
	var r reading
	err = w.read(&r, value, now)
	return r.endpoint, r.renew, err
}

// issued returns the value of a new cookie.
func (w *cookieWay) issued(endpoint string, now time.Time) string {
	return w.known[0].seal(w.known[0].tag(endpoint), now)
}

// A cookie is good until MaxAge after its date, renewed in the last three quarters of that, and may
// come from a clock that is up to a day ahead.
func TestCookie_Dates_S03(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		maxAge, age time.Duration
		want        error
		renew       bool
	}{
		{0, 0, nil, false},
		{0, 1000 * hour, nil, false},
		{0, 79 * 365 * 24 * hour, nil, false},
		{0, -23 * hour, nil, false},
		{0, -24 * hour, nil, false},
		{0, -24*hour - time.Second, errFuture, false},
		{0, -25 * hour, errFuture, false},
		{0, -1000 * hour, errFuture, false},
		{hour, 0, nil, false},
		{hour, 15 * time.Minute, nil, false},
		{hour, 15*time.Minute + time.Second, nil, true},
		{hour, hour, nil, true},
		{hour, hour + time.Second, errExpired, false},
		{hour, 1000 * hour, errExpired, false},
		{hour, -23 * hour, nil, false},
		{hour, -25 * hour, errFuture, false},
		{4 * time.Second, time.Second, nil, false},
		{4 * time.Second, 2 * time.Second, nil, true},
		{4 * time.Second, 4 * time.Second, nil, true},
		{4 * time.Second, 5 * time.Second, errExpired, false},
	} {
		w := newTestWay(Cookie{Secret: secretNo(1), MaxAge: row.maxAge})
		home, renew, err := w.opened(w.issued("b:80", dawn), dawn.Add(row.age))
		if row.want != nil {
			assert.ErrorIs(t, err, row.want, "%+v", row)
			assert.Empty(t, home, "%+v", row)
			continue
		}
		require.NoError(t, err, "%+v", row)
		assert.Equal(t, "b:80", home, "%+v", row)
		assert.Equal(t, row.renew, renew, "%+v", row)
	}
}

// During a rotation a cookie of the old secret is good, and is replaced; afterwards it is forged.
func TestCookie_Rotation_S03(t *testing.T) {
	t.Parallel()
	before := newTestWay(Cookie{Secret: secretNo(1), MaxAge: hour})
	during := newTestWay(Cookie{Secret: secretNo(2), Previous: secretNo(1), MaxAge: hour})
	after := newTestWay(Cookie{Secret: secretNo(2), MaxAge: hour})

	old := before.issued("b:80", dawn)
	home, renew, err := during.opened(old, dawn)
	require.NoError(t, err)
	assert.Equal(t, "b:80", home)
	assert.True(t, renew)
	renewed := during.issued(home, dawn)
	home, renew, err = during.opened(renewed, dawn)
	require.NoError(t, err)
	assert.Equal(t, "b:80", home)
	assert.False(t, renew)

	_, _, err = after.opened(old, dawn)
	assert.ErrorIs(t, err, errForged)
	home, _, err = after.opened(renewed, dawn)
	require.NoError(t, err)
	assert.Equal(t, "b:80", home)

	_, _, err = during.opened(old, dawn.Add(2*hour))
	assert.ErrorIs(t, err, errExpired, "the old secret's cookies expire, too")
	_, _, err = during.opened(newTestWay(Cookie{Secret: secretNo(3)}).issued("b:80", dawn), dawn)
	assert.ErrorIs(t, err, errForged)
}

// Two replicas go from one secret to another in two steps, in every order of a roll-out. A caller
// who asks both after each step, with whatever cookie the last one left, stays where it belongs.
func TestCookie_RotationInEveryOrder_S03_S06(t *testing.T) {
	t.Parallel()
	stages := []*cookieWay{
		newTestWay(Cookie{Secret: secretNo(1)}),
		newTestWay(Cookie{Secret: secretNo(1), Previous: secretNo(2)}),
		newTestWay(Cookie{Secret: secretNo(2), Previous: secretNo(1)}),
	}
	paths := 0
	var roll func(at [2]int, value, path string)
	roll = func(at [2]int, value, path string) {
		for _, replica := range []int{0, 1, 0} {
			w := stages[at[replica]]
			home, renew, err := w.opened(value, dawn)
			require.NoError(t, err, path)
			require.Equal(t, "c:80", home, path)
			if renew {
				value = w.issued(home, dawn)
			}
		}
		if at == [2]int{2, 2} {
			paths++
			home, renew, err := newTestWay(Cookie{Secret: secretNo(2)}).opened(value, dawn)
			require.NoError(t, err, path)
			assert.Equal(t, "c:80", home, path)
			assert.False(t, renew, path)
		}
		for replica := range at {
			next := at
			next[replica]++
			if next[replica] < len(stages) && max(next[0], next[1])-min(next[0], next[1]) <= 1 {
				roll(next, value, fmt.Sprintf("%s %d:%d", path, replica, next[replica]))
			}
		}
	}
	roll([2]int{}, stages[0].issued("c:80", dawn), "")
	assert.Equal(t, 4, paths)
}

// Endpoints that come and go, and a rotation while they do, do not change what cookies mean.
func TestCookie_Endpoints_S06(t *testing.T) {
	t.Parallel()
	n := newNoted(t, Cookie{Secret: secretNo(1)})
	value := n.work.Load().way.(*cookieWay).issued("b:80", dawn)
	home := func() string { return n.begun(with(t, "evenkeel="+value)).home() }
	assert.Equal(t, "b:80", home())
	n.Endpoints(listed("z:80", "b:80", "y:80"))
	assert.Equal(t, "b:80", home())
	n.Endpoints(listed("y:80", "z:80"))
	assert.Equal(t, gone, home())
	n.Endpoints([]discovery.Endpoint{{ID: "pod-1", Address: "b:80"}})
	assert.Equal(t, gone, home(), "a reused address is another endpoint")
	n.Endpoints([]discovery.Endpoint{{ID: "b:80", Address: "x:80"}})
	assert.Equal(t, "b:80", home(), "an identity that has moved is not")
	require.NoError(t, n.Use(&Policy{By: named(Cookie{Secret: secretNo(2), Previous: secretNo(1)})}))
	assert.Equal(t, "b:80", home())
	n.Endpoints(listed("a:80", "b:80"))
	assert.Equal(t, "b:80", home())
	require.NoError(t, n.Use(&Policy{By: Cookie{Name: "other", Secret: secretNo(1)}}))
	assert.Empty(t, home())
	assert.Empty(t, n.begun(with(t, "other="+value)).home(), "under another name it is another's")
	assert.Equal(t, uint64(1), n.Status().Rejected)
	require.NoError(t, n.Use(&Policy{By: named(Cookie{Secret: secretNo(1)})}))
	assert.Equal(t, "b:80", home())
	assert.Equal(t, uint64(1), n.Status().Rejected)
	require.NoError(t, n.Use(&Policy{By: named(Cookie{Secret: secretNo(2)})}))
	assert.Empty(t, home())
	assert.Equal(t, uint64(2), n.Status().Rejected)
}

// Given a value that is not valid, then it is counted, told without the value, and of no effect.
func TestCookie_Ignored_S03(t *testing.T) {
	t.Parallel()
	ours := newTestWay(Cookie{Secret: secretNo(1), MaxAge: hour})
	value := ours.issued("b:80", dawn)
	for about, row := range map[string]struct{ value, cause string }{
		"empty":       {"", "malformed"},
		"one letter":  {"A", "malformed"},
		"an address":  {"b:80", "malformed"},
		"truncated":   {value[:43], "malformed"},
		"extended":    {value + "A", "malformed"},
		"padded":      {value + "=", "malformed"},
		"1 MiB":       {strings.Repeat("A", 1<<20), "malformed"},
		"too short":   {strings.Repeat("A", 39), "malformed"},
		"forged":      {strings.Repeat("A", 44), errForged.Error()},
		"lower case":  {strings.ToLower(value), errForged.Error()},
		"foreign":     {newTestWay(Cookie{Secret: secretNo(2)}).issued("b:80", dawn), errForged.Error()},
		"expired":     {ours.issued("b:80", dawn.Add(-2*hour)), "expired"},
		"from beyond": {ours.issued("b:80", dawn.Add(25*hour)), "from the future"},
	} {
		n := newNoted(t, Cookie{Secret: secretNo(1), MaxAge: hour})
		v := n.begun(with(t, "evenkeel="+row.value))
		assert.Empty(t, v.home(), about)
		assert.NoError(t, v.refusal, about)
		assert.Equal(t, []Event{{Time: dawn, Kind: Rejected, Cause: row.cause}}, n.events, about)
		assert.Equal(t, Status{Rejected: 1}, n.Status(), about)
	}
}

// A caller that changes its slice later changes nothing.
func TestCookie_SecretIsCopied(t *testing.T) {
	t.Parallel()
	current, previous := keyNo(1), keyNo(2)
	n := newNoted(t, Cookie{Secret: NewSecret(current), Previous: NewSecret(previous)})
	clear(current)
	clear(previous)
	n.Endpoints(listed("a:80"))
	for _, secret := range []Secret{secretNo(1), secretNo(2)} {
		value := newTestWay(Cookie{Secret: secret}).issued("a:80", dawn)
		assert.Equal(t, "a:80", n.begun(with(t, "evenkeel="+value)).home())
	}
}
