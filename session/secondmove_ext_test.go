package session_test

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"

	"github.com/evenkeel-go/evenkeel/session"
)

// A session that moves twice within 10 s has moved twice, and those who have its first and its second cookie agree.
func TestCookie_SecondMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, session.Policy{By: session.Cookie{Secret: secret}})
		first, resp := h.ask(t, get(t))
		old := cookieOf(t, resp)
		h.push(without(first)...)
		moved := h.together(t, 1, old)[0].cookie
		_ = moved
		h.push("d:80", "e:80", "f:80")
		h.together(t, 1, old)
		assert.Equal(t, uint64(2), h.keeper.Status().Moved)
		assert.Len(t, h.events, 2)
	})
}
