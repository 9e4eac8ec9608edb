package session_test

import (
	"os"
	"testing"

	"github.com/redis/go-redis/v9/logging"
)

func TestMain(m *testing.M) {
	logging.Disable() // dials fail here on purpose
	os.Exit(m.Run())
}
