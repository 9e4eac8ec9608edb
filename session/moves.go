package session

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/evenkeel-go/evenkeel/clock"
)

// moves remembers where sessions have moved whose callers may not have heard of it yet, by their cookies: so
// calls that come at once agree.
type moves struct {
	table *Table
	until atomic.Int64 // when all is forgotten, by the table's clock
}

const (
	// answers comes before a cookie in the table's keys where it is about who has answered.
	answers   = "answered "
	movesTTL  = 10 * time.Second
	mostMoves = 1 << 16 // each is remembered in two places
)

func newMoves(c clock.Clock) (*moves, error) {
	table, err := NewTable(TableConfig{TTL: movesTTL, MaxSessions: mostMoves, Clock: c})
	return &moves{table: table}, err
}

// of returns where a cookie's session has moved, "" if it has not.
func (m *moves) of(cookie string) string {
	if m.quiet() {
		return ""
	}
	endpoint, _ := m.table.Lookup(context.Background(), cookie)
	if endpoint != "" {
		m.note() // it lives longer from now on
	}
	return endpoint
}

// last returns where a cookie's session has moved, "" if it has not, and who has answered it last:
// the endpoint that the cookie names, if nobody else has.
func (m *moves) last(cookie, named string) (now, answered string) {
	if m.quiet() {
		return "", named
	}
	now, answered = m.of(cookie), m.of(answers+cookie)
	if answered == "" {
		answered = named
	}
	return now, answered
}

// quiet reports whether no session has moved of late, as nearly always.
func (m *moves) quiet() bool {
	until := m.until.Load()
	if until == 0 || int64(m.table.elapsed()) < until {
		return until == 0
	}
	m.until.CompareAndSwap(until, 0) // so that the clock is not asked any more
	return true
}

// claim decides where the calls with a cookie go that cannot go where they went before.
func (m *moves) claim(cookie, before, endpoint string) string {
	m.note()
	now, _ := m.table.pin(cookie, before, endpoint)
	return now
}

// moved notes that an endpoint has answered, and reports whether that was the first answer from there.
func (m *moves) moved(cookie, endpoint string) bool {
	m.note()
	m.set(cookie, endpoint)
	return m.set(answers+cookie, endpoint)
}

func (m *moves) set(key, endpoint string) (changed bool) {
	before, _ := m.table.Lookup(context.Background(), key)
	_, changed = m.table.pin(key, before, endpoint)
	return changed
}

// note keeps what is remembered from being overlooked.
func (m *moves) note() { m.until.Store(int64(m.table.elapsed() + movesTTL)) }
