package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/alexedwards/scs/goredisstore"
	"github.com/alexedwards/scs/v2"
	"github.com/redis/go-redis/v9"
)

const (
	memory    = "memory"        // in place of the address of a Redis
	listening = "listening at " // what a server says when it is ready, before its address
)

// serve is one of the servers. It knows nothing of evenkeel, and where its sessions are is all that
// differs between the two ways.
func serve(ctx context.Context, store string) error {
	sessions := scs.New()           // with its sessions in memory
	sessions.Lifetime = time.Minute // so that a Redis that others use soon forgets this program
	if store != memory {
		client := redis.NewClient(&redis.Options{Addr: store})
		defer client.Close()
		if err := client.Ping(ctx).Err(); err != nil {
			return fmt.Errorf("no Redis answers at %s: %w", store, err)
		}
		sessions.Store = goredisstore.NewWithPrefix(client, "evenkeel-example:")
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	count := func(w http.ResponseWriter, r *http.Request) {
		n := sessions.GetInt(r.Context(), "visits") + 1
		sessions.Put(r.Context(), "visits", n)
		_ = json.NewEncoder(w).Encode(visit{Server: listener.Addr().String(), Count: n}) // an error means that the client has gone
	}
	server := &http.Server{
		Handler:           sessions.LoadAndSave(http.HandlerFunc(count)),
		ReadHeaderTimeout: 5 * time.Second,
	}
	go func() { // it does not outlive the program that has started it, however that ends
		_, _ = io.Copy(io.Discard, os.Stdin)
		server.Close()
	}()
	fmt.Println(listening + listener.Addr().String())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// process is a server as a process of its own: when it is killed, what it had in memory is really
// gone.
type process struct {
	address string
	cancel  context.CancelFunc // kills it
	done    chan struct{}      // closed when it has ended
	err     error              // with what, after done
}

// startServer starts this program once more, as one of the servers.
func startServer(ctx context.Context, sessions string) (*process, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, address, err := start(ctx, listening, program, "-serve", sessions)
	if err != nil {
		return nil, err
	}
	p.address = address
	return p, nil
}

// startRedis starts a Redis that has nothing in it, and keeps nothing.
func startRedis(ctx context.Context) (*process, error) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, errors.New("redis-server is not installed: install it (apt-get install redis-server), or tell where a Redis is with -redis ADDRESS")
	}
	for attempt := 1; ; attempt++ {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		address := listener.Addr().String()
		listener.Close()
		host, port, _ := net.SplitHostPort(address)
		p, _, err := start(ctx, "Ready to accept connections", program, "--bind", host, "--port", port, "--save", "", "--appendonly", "no")
		if err == nil {
			p.address = address
			return p, nil
		}
		if attempt == 5 || ctx.Err() != nil { // somebody else may take the port before Redis does, but not always
			return nil, err
		}
	}
}

// start starts a program in a directory of its own, waits until it prints the words that tell that it
// is ready, and returns the rest of that line.
func start(ctx context.Context, ready, program string, args ...string) (*process, string, error) {
	dir, err := os.MkdirTemp("", "evenkeel-sessions-")
	if err != nil {
		return nil, "", err
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &process{cancel: cancel, done: make(chan struct{})}
	found := make(chan string, 1)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	go func() {
		defer close(p.done)
		p.err = follow(cmd, ready, found)
		_ = os.RemoveAll(dir)
	}()
	select {
	case rest := <-found:
		return p, rest, nil
	case <-p.done:
		defer cancel()
		return nil, "", cmp.Or(ctx.Err(), p.err)
	}
}

// follow runs a program to its end. The error has the last line that it has printed.
func follow(cmd *exec.Cmd, ready string, found chan<- string) error {
	if _, err := cmd.StdinPipe(); err != nil { // it is closed when this program ends, by whatever
		return err
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return err
	}
	var last string
	for lines := bufio.NewScanner(output); lines.Scan(); {
		last = lines.Text()
		if _, rest, ok := strings.Cut(last, ready); ok {
			select {
			case found <- rest:
			default: // it has been told
			}
		}
	}
	return fmt.Errorf("%s: %w: %s", cmd.Path, cmp.Or(cmd.Wait(), errors.New("ended")), last)
}

// kill ends the process without giving it time for anything, and waits until it is gone.
func (p *process) kill() {
	p.cancel()
	<-p.done
}
