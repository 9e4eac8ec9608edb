package redis

import (
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// ErrClosed is the error of all operations after [Store.Close].
var ErrClosed = errors.New("redis: the session store is closed")

// explain makes an error of go-redis one of the store.
func explain(err error) error {
	var reply redis.Error
	if err != nil && errors.As(err, &reply) {
		// It is not wrapped, so that nobody else shows it in full.
		return fmt.Errorf("redis: session store: answered %s", withoutQuotes(reply.Error()))
	}
	if err != nil {
		return fmt.Errorf("redis: session store: %w", err)
	}
	return nil
}

// withoutQuotes returns the text of an error reply up to where it may begin to repeat what it was sent:
// "ERR unknown command 'AUTH', with args beginning with: 'secret'".
func withoutQuotes(text string) string {
	if i := strings.IndexAny(text, "'`\"\r\n"); i >= 0 {
		return strings.TrimRight(text[:i], " ") + " ..."
	}
	return text
}
