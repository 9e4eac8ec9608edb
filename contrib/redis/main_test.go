package redis_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9/logging"
)

// TestMain fails if a goroutine of a store outlives it. One of go-redis may, for a second.
func TestMain(m *testing.M) {
	logging.Disable() // dials fail here on purpose
	code := m.Run()
	stacks := make([]byte, 1<<20)
	for deadline := time.Now().Add(10 * time.Second); code == 0; time.Sleep(10 * time.Millisecond) {
		text := string(stacks[:runtime.Stack(stacks, true)])
		if !strings.Contains(text, "go-redis") && !strings.Contains(text, "fakeRedis") {
			break
		}
		if time.Now().After(deadline) {
			fmt.Fprintln(os.Stderr, "goroutines are left:", text)
			code = 1
		}
	}
	os.Exit(code)
}
