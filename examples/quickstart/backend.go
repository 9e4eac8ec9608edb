package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// backendRole is the environment variable by which the program is told to be a
// server: "name@host:port". It has no place among the flags, which are for people.
const backendRole = "QUICKSTART_BACKEND"

func isBackend() bool { return os.Getenv(backendRole) != "" }

// runBackend is a small, well-behaved HTTP server. It says on standard output
// where it listens, ends gracefully on SIGTERM, and at once when its standard
// input ends, because that is what happens when the program that started it is
// gone, however that ended.
func runBackend() error {
	signal.Ignore(os.Interrupt) // Ctrl-C in a terminal goes to all of us, but is for that program
	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, syscall.SIGTERM)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()

	name, address, _ := strings.Cut(os.Getenv(backendRole), "@")
	listener, err := listen(address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: backendHandler(name), ReadHeaderTimeout: time.Second}
	go func() { _ = server.Serve(listener) }() // until Shutdown
	fmt.Println(listener.Addr())

	<-terminate
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return server.Shutdown(ctx)
}

// backendHandler takes what it is sent, works a little, and says its name.
func backendHandler(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		time.Sleep(2*time.Millisecond + rand.N(6*time.Millisecond))
		fmt.Fprintln(w, name)
	})
}

// listen tries for a while: the port of a server that was killed a moment ago may
// still be taken.
func listen(address string) (net.Listener, error) {
	for tries := 0; ; tries++ {
		listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", address)
		if err == nil || tries == 40 {
			return listener, err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// backend is a server as the program sees it that started it.
type backend struct {
	name, address string
	draining      bool
	cmd           *exec.Cmd
	stdin         io.Closer
}

// start starts the server's process, at the port that it had before if there was
// one, and waits until it listens.
func (b *backend) start() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	address := b.address
	if address == "" {
		address = "127.0.0.1:0"
	}
	b.cmd = exec.CommandContext(context.Background(), self)
	b.cmd.Env = append(os.Environ(), backendRole+"="+b.name+"@"+address)
	b.cmd.Stderr = os.Stderr
	if b.stdin, err = b.cmd.StdinPipe(); err != nil {
		return err
	}
	stdout, err := b.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := b.cmd.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		b.kill()
		return fmt.Errorf("server %s has not started: %w", b.name, err)
	}
	b.address = strings.TrimSpace(line)
	return nil
}

// kill ends the server as a crash does.
func (b *backend) kill() {
	if b.cmd.Process == nil {
		return // it could not even be started
	}
	_ = b.cmd.Process.Kill() // SIGKILL; an error means that it has ended already
	_ = b.cmd.Wait()
}

// stop ends the server gracefully.
func (b *backend) stop() error {
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		b.kill()
		return err
	}
	return b.cmd.Wait()
}
