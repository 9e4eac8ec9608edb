package redis_test

import (
	"bufio"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/contrib/redis"
)

// fakeRedis understands what the store says, as long as nothing goes wrong but what a test wants to
// go wrong. The real one is in integration/session.
type fakeRedis struct {
	mu       sync.Mutex    // guards what follows
	down     bool          // refuses connections, and has closed those that there were
	silent   bool          // answers nothing
	hang     chan struct{} // if set, dials wait until it is closed, or for as long as they may
	replies  map[string]string
	values   map[string]string
	lives    map[string]int64 // in milliseconds; they do not pass
	scripts  map[string]bool  // those that it has seen, by their SHA-1
	commands []string         // and "extend" for each run of that script
	conns    []net.Conn
}

var errRefused = errors.New("connection refused")

func newFake() *fakeRedis {
	return &fakeRedis{replies: map[string]string{}, values: map[string]string{}, lives: map[string]int64{}, scripts: map[string]bool{}}
}

// newStore returns a store in the fake that ends with the test.
func newStore(t *testing.T, f *fakeRedis, c redis.Config) *redis.Store {
	t.Helper()
	c.Options.Addrs = []string{"192.0.2.1:6379"} // go-redis would look up a name
	c.Options.Dialer = f.dial
	if c.Timeout == 0 {
		c.Timeout = 20 * time.Second // in which nothing may go wrong on a busy machine
	}
	s, err := redis.New(c)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, s.Close())
		f.set(func() { f.down = true })
	})
	return s
}

// set changes the fake. Its connections end if it is down then.
func (f *fakeRedis) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	if f.down {
		for _, conn := range f.conns {
			conn.Close()
		}
		f.conns = nil
	}
}

// sent returns how often it was sent a command.
func (f *fakeRedis) sent(command string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, c := range f.commands {
		if c == command {
			n++
		}
	}
	return n
}

// onlyKey returns the key that there is.
func (f *fakeRedis) onlyKey(t *testing.T) string {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	require.Len(t, f.values, 1)
	for key := range f.values {
		return key
	}
	return ""
}

func (f *fakeRedis) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if f.hang != nil {
		select {
		case <-f.hang:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return nil, errRefused
	}
	client, server := net.Pipe()
	f.conns = append(f.conns, server)
	go f.serve(server)
	return client, nil
}

func (f *fakeRedis) serve(conn net.Conn) {
	defer conn.Close()
	for r := bufio.NewReader(conn); ; {
		args, err := readCommand(r)
		if err != nil {
			return
		}
		if reply := f.answer(args); reply != "" {
			if _, err := io.WriteString(conn, reply+"\r\n"); err != nil {
				return
			}
		}
	}
}

func readCommand(r *bufio.Reader) ([]string, error) {
	n, err := readNumber(r)
	if err != nil {
		return nil, err
	}
	args := make([]string, n)
	for i := range args {
		size, err := readNumber(r)
		if err != nil {
			return nil, err
		}
		text := make([]byte, size+2)
		if _, err := io.ReadFull(r, text); err != nil {
			return nil, err
		}
		args[i] = string(text[:size])
	}
	return args, nil
}

// readNumber reads "*2" or "$3".
func readNumber(r *bufio.Reader) (int, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(line[1:]))
}

// answer returns what to send, without the end of its line.
func (f *fakeRedis) answer(args []string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	command := strings.ToUpper(args[0])
	f.commands = append(f.commands, command)
	if f.silent {
		return ""
	}
	if reply, ok := f.replies[command]; ok {
		return reply
	}
	switch command {
	case "CLIENT", "AUTH":
		return "+OK"
	case "PING":
		return "+PONG"
	case "GET":
		if value, ok := f.values[args[1]]; ok {
			return bulk(value)
		}
		return "$-1"
	case "PTTL":
		if life, ok := f.lives[args[1]]; ok {
			return fmt.Sprintf(":%d", life)
		}
		return ":-2"
	case "EVALSHA":
		if !f.scripts[args[1]] {
			return "-NOSCRIPT No matching script"
		}
		return f.run(args[3:])
	case "EVAL":
		f.scripts[fmt.Sprintf("%x", sha1.Sum([]byte(args[1])))] = true
		return f.run(args[3:])
	default:
		return unknown(args)
	}
}

// run runs the one of the two scripts that has so many arguments.
func (f *fakeRedis) run(args []string) string {
	if len(args) == 3 {
		return f.extend(args)
	}
	return f.pin(args)
}

// extend does what the script should: args are the key, what it must be pinned to, and its life.
func (f *fakeRedis) extend(args []string) string {
	f.commands = append(f.commands, "extend")
	if value, ok := f.values[args[0]]; !ok || value != args[1] {
		return ":0"
	}
	f.lives[args[0]], _ = strconv.ParseInt(args[2], 10, 64)
	return ":1"
}

// pin does what the script should: args are the key, from, to, what to pin to if it is lost, and the lives
// of a key and of a mark.
func (f *fakeRedis) pin(args []string) string {
	pinned, ok := f.values[args[0]]
	switch {
	case !ok:
		pinned = args[3]
	case pinned == "" || pinned == args[1]:
		pinned = args[2]
	}
	life := args[4]
	if pinned == "" {
		if args[1] == "" {
			return bulk("") // neither was nor will be pinned
		}
		life = args[5]
	}
	f.values[args[0]] = pinned
	f.lives[args[0]], _ = strconv.ParseInt(life, 10, 64)
	return bulk(pinned)
}

func bulk(text string) string { return fmt.Sprintf("$%d\r\n%s", len(text), text) }

// unknown is what Redis says to commands that it does not know.
func unknown(args []string) string {
	rest := slices.Clone(args[1:])
	for i := range rest {
		rest[i] = "'" + rest[i] + "'"
	}
	return fmt.Sprintf("-ERR unknown command '%s', with args beginning with: %s", args[0], strings.Join(rest, " "))
}
