// Command sessions shows side by side the two ways to deal with the sessions of users behind several
// servers:
//
//  1. The servers keep nothing: sessions are in Redis, where all servers find them. This is the
//     better way, and evenkeel has nothing to do for it.
//  2. The servers keep sessions in memory, and evenkeel.WithSession brings a user back to the same
//     one.
//
// Each way, a user visits ten times, the server of the last visit is killed, and the user visits
// ten times more. It needs a redis-server to start, or the address of one that runs:
//
//	go run ./examples/sessions
//	go run ./examples/sessions -redis localhost:6379
package main

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/session"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait for anything
	redis := flag.String("redis", "", "`address` of a Redis, in place of one of its own")
	server := flag.String("serve", "", "be one of the servers, with sessions in `memory`, or in the Redis at this address")
	flag.Parse()

	var err error
	if *server != "" {
		err = serve(ctx, *server)
	} else {
		err = run(ctx, os.Stdout, *redis)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sessions:", err)
		os.Exit(1)
	}
}

// run tries both ways, and prints what came of them.
func run(ctx context.Context, out io.Writer, address string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute) // of which it needs a second or two
	defer cancel()
	if address == "" {
		redis, err := startRedis(ctx)
		if err != nil {
			return err
		}
		defer redis.kill()
		address = redis.address
	}

	// The first way: any server serves any request. There is nothing to set, evenkeel balances as
	// it likes.
	stateless, err := try(ctx, address)
	if err != nil {
		return err
	}

	// The second way: a cookie of evenkeel's own tells where a user belongs.
	secret := make([]byte, 32) // which all replicas of a real gateway must share
	_, _ = rand.Read(secret)   // it never fails
	cookie := session.Cookie{Secret: session.NewSecret(secret)}
	sticky, err := try(ctx, memory, evenkeel.WithSession(session.Policy{By: cookie}))
	if err != nil {
		return err
	}
	return report(out, stateless, sticky)
}

const explanation = `
Sessions in Redis: all servers are equal, and a server that is killed takes nothing with it.

Sessions in memory: the user comes back to the same server. When it is killed, the session moves
to another one, and no visit fails. But WHAT THE KILLED SERVER HAD IN ITS MEMORY IS LOST: the
counter begins again at 1. evenkeel cannot prevent that: what must not be lost belongs in Redis.
`

func report(out io.Writer, stateless, sticky trial) error {
	fmt.Fprintf(out, "%d servers, one user: %d visits, then the server of the last visit is killed, then %d more.\n\n", servers, visits, visits)
	table := tabwriter.NewWriter(out, 0, 0, 4, ' ', 0)
	row := func(title string, cell func(trial) string) {
		fmt.Fprintf(table, "%s\t%s\t%s\n", title, cell(stateless), cell(sticky))
	}
	fmt.Fprint(table, "\tsessions in Redis\tsessions in memory,\n\twithout WithSession\tWithSession\n")
	row("servers that answered", func(t trial) string {
		return fmt.Sprintf("%d, then %d", len(t.before.servers), len(t.after.servers))
	})
	row("counter before the kill", func(t trial) string { return t.before.counter() })
	row("counter after the kill", func(t trial) string { return t.after.counter() })
	row("errors", func(t trial) string { return fmt.Sprint(t.before.errors + t.after.errors) })
	row("moves", func(t trial) string { return fmt.Sprint(t.moved) })
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(out, explanation)
	return err
}
