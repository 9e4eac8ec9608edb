package session_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/session"
)

// fields returns which fields an error names.
func fields(t testing.TB, err error) (names []string) {
	t.Helper()
	var joined interface{ Unwrap() []error }
	require.ErrorAs(t, err, &joined)
	for _, one := range joined.Unwrap() {
		var problem *field.Error
		require.ErrorAs(t, one, &problem)
		names = append(names, problem.Field)
	}
	return names
}

func TestPolicy_BadKinds_P02(t *testing.T) {
	t.Parallel()
	header := []session.Property{{Header: "X-User"}}
	for _, row := range []struct {
		fields string
		policy session.Policy
	}{
		{"By", session.Policy{}},
		{"By", session.Policy{By: &session.Cookie{Secret: secret}}},
		{"By", session.Policy{By: &session.Key{}}},
		{"By", session.Policy{By: &session.Learn{Cookie: "a"}}},
		{"By", session.Policy{By: &session.Route{From: header}}},
		{"By", session.Policy{By: &session.Hash{From: header}}},
		{"By", session.Policy{By: (*session.Key)(nil)}},
		{"By", session.Policy{By: struct{ session.Kind }{session.Key{}}}},
		{"By DrainFor", session.Policy{DrainFor: -1}},
		{"StoreTimeout", session.Policy{By: session.Key{}, StoreTimeout: -time.Second}},
		{"Strict", session.Policy{By: session.Hash{From: header}, Strict: true}},
		{"By.Cookie", session.Policy{By: session.Learn{}}},
		{"By.Header", session.Policy{By: session.Learn{Cookie: "a", Header: "X-A"}}},
		{"By.Cookie", session.Policy{By: session.Learn{Cookie: "a b"}}},
		{"By.Header", session.Policy{By: session.Learn{Header: "X A"}}},
		{"By.Cookie By.TTL By.MaxSessions", session.Policy{By: session.Learn{TTL: -1, MaxSessions: -1}}},
		{"By.From", session.Policy{By: session.Route{}}},
		{"By.From[0].Header", session.Policy{By: session.Route{From: []session.Property{{}}}}},
		{"By.From[1].Cookie", session.Policy{By: session.Route{From: []session.Property{{Path: true}, {Header: "A", Cookie: "b"}}}}},
		{"By.From[0].Header", session.Policy{By: session.Key{From: []session.Property{{}}}}},
		{"By.From[0].Header", session.Policy{By: session.Key{From: []session.Property{{Header: "a:b"}}}}},
		{"By.From[0].Cookie", session.Policy{By: session.Key{From: []session.Property{{Cookie: "a;b"}}}}},
		{"By.From[0].ClientAddress By.TTL", session.Policy{By: session.Key{From: []session.Property{{Path: true, ClientAddress: true}}, TTL: -1}}},
		{"By.From[0].Header", session.Policy{By: session.Hash{From: []session.Property{{}}}}},
	} {
		err := row.policy.Validate()
		require.Error(t, err, "%+v", row)
		assert.Equal(t, strings.Fields(row.fields), fields(t, err), "%v", err)
		k, err := session.NewKeeper(session.Config{Policy: &row.policy})
		assert.Nil(t, k)
		assert.Equal(t, strings.Fields("Policy."+strings.ReplaceAll(row.fields, " ", " Policy.")), fields(t, err))
	}
	for _, p := range []session.Policy{
		{By: session.Key{}, Strict: true}, {By: session.Hash{}}, {By: session.Learn{Header: "X-A"}}, {By: session.Route{From: header, Separator: "\x00"}},
	} {
		assert.NoError(t, p.Validate())
	}
}

var attributed = []discovery.Endpoint{
	{Address: "a:80", Attributes: map[string]string{"name": "node1"}},
	{ID: "b", Address: "b:80", Attributes: map[string]string{"name": "node2"}},
	{Address: "c:80", Attributes: map[string]string{"name": ""}},
	{Address: "d:80"},
}

// A request goes to the endpoint that it names, and else to whichever is next.
func TestRoute_Names(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, row := range []struct {
			value, separator, attribute string
			want                        string // empty if it names nothing
			unknown                     bool   // it names an endpoint that there is not
		}{
			{value: "a:80", want: "a:80"},
			{value: "b", want: "b:80"},
			{value: "b:80", unknown: true}, // is not its identity
			{value: "A:80", unknown: true},
			{value: "52A8.a:80", unknown: true},
			{value: "52A8.a:80", separator: ".", want: "a:80"},
			{value: "52.A8.b", separator: ".", want: "b:80"},
			{value: ".b", separator: ".", want: "b:80"},
			{value: "b", separator: "."},
			{value: "52A8.", separator: "."},
			{value: ".", separator: "."},
			{value: "52A8.b.", separator: "."},
			{value: "52A8~~b", separator: "~~", want: "b:80"},
			{value: "52A8~b", separator: "~~"},
			{value: "52~~A8~~~b", separator: "~~", want: "b:80"},
			{value: "52A8.node1", separator: ".", attribute: "name", want: "a:80"},
			{value: "52A8.node2", separator: ".", attribute: "name", want: "b:80"},
			{value: "node2", attribute: "name", want: "b:80"},
			{value: "b", attribute: "name", unknown: true},
			{value: "node3", attribute: "name", unknown: true},
			{value: "node1", attribute: "zone", unknown: true},
			{value: ""},
			{value: "", attribute: "name"},
		} {
			for _, strict := range []bool{false, true} {
				h := newHouse(t, session.Policy{
					By: session.Route{From: []session.Property{{Header: "X-Route"}}, Separator: row.separator, Attribute: row.attribute}, Strict: strict,
				}, attributed...)
				got := map[string]bool{}
				for range 8 {
					resp, err := h.RoundTrip(get(t, "X-Route: "+row.value))
					if row.unknown && strict {
						require.ErrorIs(t, err, session.ErrUnavailable, "%+v", row)
						continue
					}
					require.NoError(t, err, "%+v", row)
					require.NoError(t, resp.Body.Close())
					got[h.seen[len(h.seen)-1]] = true
				}
				switch {
				case row.unknown && strict:
					assert.Empty(t, h.seen)
					assert.Equal(t, uint64(8), h.keeper.Status().Refused)
				case row.want != "":
					assert.Equal(t, map[string]bool{row.want: true}, got, "%+v", row)
					assert.Equal(t, session.Status{Kept: 8}, h.keeper.Status(), "%+v", row)
				default:
					assert.Len(t, got, 4, "%+v", row)
					assert.Equal(t, session.Status{}, h.keeper.Status(), "%+v: it remembers nothing, and so moves nothing", row)
					assert.Empty(t, h.events, "%+v", row)
				}
				h.assertClean(t)
			}
		}
	})
}

// What is served elsewhere is no move, whether its endpoint has failed, is draining or is gone, and it goes back as
// soon as it can.
func TestRoute_MovesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, session.Policy{By: session.Route{From: []session.Property{{Header: "X-Route"}}}}).retrying(t)
		ask := func() string {
			address, _ := h.ask(t, get(t, "X-Route: a:80"))
			return address
		}
		h.let(breaks, "a:80")
		assert.NotEqual(t, "a:80", ask())
		h.let(nil, all...)
		assert.Equal(t, "a:80", ask())
		h.push(without("a:80")...)
		assert.NotEqual(t, "a:80", ask())
		h.push(all...)
		assert.Equal(t, "a:80", ask())
		h.pushed.sets <- []discovery.Endpoint{{Address: "a:80", Draining: true}, {Address: "b:80"}}
		synctest.Wait()
		assert.Equal(t, "a:80", ask(), "it drains, and has its sessions still")
		assert.Equal(t, session.Status{Kept: 3}, h.keeper.Status())
		assert.Empty(t, h.events)
		h.assertClean(t)
	})
}

// The first property with a value counts.
func TestRoute_Precedence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, session.Policy{By: session.Route{From: []session.Property{
			{Query: "node"}, {Cookie: "JSESSIONID"}, {Func: func(*http.Request) string { return "c:80" }},
		}}})
		for _, row := range []struct{ query, cookie, want string }{
			{"a:80", "b:80", "a:80"}, {"", "b:80", "b:80"}, {"", "", "c:80"},
		} {
			req := get(t, "Cookie: JSESSIONID="+row.cookie)
			req.URL.RawQuery = "node=" + row.query
			address, _ := h.ask(t, req)
			assert.Equal(t, row.want, address)
		}
	})
}

// The key in the context goes before those in the request, of which the first with a value counts.
func TestKey_Precedence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, session.Policy{By: session.Key{From: []session.Property{{Header: "X-User"}, {ClientAddress: true}}}})
		request := func(context, header, address string) *http.Request {
			req := get(t)
			if header != "" {
				req.Header.Set("X-User", header)
			}
			req.RemoteAddr = address
			return req.WithContext(session.WithKey(req.Context(), context))
		}
		k1, _ := h.ask(t, request("k1", "", ""))
		k2, _ := h.ask(t, request("", "k2", ""))
		k3, _ := h.ask(t, request("", "", "192.0.2.1:1"))
		assert.ElementsMatch(t, all, []string{k1, k2, k3})
		for _, row := range []struct{ context, header, address, want string }{
			{"k1", "k2", "192.0.2.1:2", k1},
			{"", "k2", "192.0.2.1:2", k2},
			{"", "", "192.0.2.1:3", k3},
			{"k2", "k1", "", k2},
			{"192.0.2.1", "k1", "", k3},
			{"", "k1", "192.0.2.1:1", k1},
		} {
			for range 3 {
				address, _ := h.ask(t, request(row.context, row.header, row.address))
				assert.Equal(t, row.want, address, "%+v", row)
			}
		}
		seen := map[string]bool{}
		for range 9 {
			address, _ := h.ask(t, request("", "", ""))
			seen[address] = true
		}
		assert.Len(t, seen, 3, "without a key it belongs nowhere")
		assert.Equal(t, session.Status{New: 3, Kept: 18, Sessions: 3}, h.keeper.Status())
		assert.Empty(t, session.KeyOf(get(t)))
		assert.Equal(t, "k", session.KeyOf(keyed(t, "k")))
	})
}

// A key that has moved does not move back, and new endpoints move none.
func TestKey_Moves_S01_S06(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, session.Policy{By: session.Key{}}).retrying(t)
		first, _ := h.ask(t, keyed(t, "k"))
		h.let(breaks, first)
		second, _ := h.ask(t, keyed(t, "k"))
		assert.NotEqual(t, first, second)
		h.let(nil, first)
		var more []discovery.Endpoint
		for _, a := range append([]string{"d:80", "e:80"}, all...) {
			more = append(more, discovery.Endpoint{Address: a})
		}
		h.pushed.sets <- more
		synctest.Wait()
		for range 10 {
			address, _ := h.ask(t, keyed(t, "k"))
			assert.Equal(t, second, address)
		}
		h.pushed.sets <- more[:2]
		synctest.Wait()
		third, _ := h.ask(t, keyed(t, "k"))
		assert.NotContains(t, all, third)
		assert.Equal(t, session.Status{New: 1, Kept: 10, Moved: 2, Sessions: 1}, h.keeper.Status())
		require.Len(t, h.events, 2)
		assert.Equal(t, []string{first, second, "attempt failed"}, []string{h.events[0].From, h.events[0].To, h.events[0].Cause})
		assert.Equal(t, []string{second, third, "removed"}, []string{h.events[1].From, h.events[1].To, h.events[1].Cause})
		h.assertClean(t)
	})
}

// A failure elsewhere does not move a session.
func TestKey_FailuresMoveNothing_S02(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, session.Policy{By: session.Key{}}).retrying(t)
		first, _ := h.ask(t, keyed(t, "k"))
		h.let(answers(http.StatusInternalServerError), all...)
		h.let(breaks, first)
		second, resp := h.ask(t, keyed(t, "k"))
		assert.NotEqual(t, first, second)
		assert.Equal(t, http.StatusInternalServerError, resp.StatusCode)
		h.let(nil, all...)
		address, _ := h.ask(t, keyed(t, "k"))
		assert.Equal(t, first, address)
		assert.Zero(t, h.keeper.Status().Moved)
		h.assertClean(t)
	})
}

// Another policy keeps the table, within the limits of its own.
func TestKeeper_UseKeepsTheTable_P01(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, session.Policy{By: session.Key{}})
		homes := map[string]string{}
		for _, key := range []string{"k1", "k2", "k3", "k4"} {
			homes[key], _ = h.ask(t, keyed(t, key))
			time.Sleep(time.Second)
		}
		require.NoError(t, h.keeper.Use(nil))
		require.NoError(t, h.keeper.Use(&session.Policy{By: session.Learn{Cookie: "a"}}))
		require.NoError(t, h.keeper.Use(&session.Policy{By: session.Key{MaxSessions: 2, TTL: time.Minute}, Strict: true}))
		assert.Equal(t, 2, h.keeper.Status().Sessions)
		for range 3 {
			for _, key := range []string{"k3", "k4"} {
				address, _ := h.ask(t, keyed(t, key))
				assert.Equal(t, homes[key], address)
			}
		}
		assert.Equal(t, session.Status{New: 4, Kept: 6, Sessions: 2}, h.keeper.Status())
		time.Sleep(time.Minute)
		h.ask(t, keyed(t, "k4"))
		assert.Equal(t, uint64(5), h.keeper.Status().New, "it was forgotten after a minute")
	})
}
