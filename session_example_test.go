package evenkeel_test

import (
	"crypto/rand"
	"fmt"
	"log"
	"net/http"
	"net/http/cookiejar"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/balancer"
	"github.com/evenkeel-go/evenkeel/discovery"
	"github.com/evenkeel-go/evenkeel/session"
)

// A caller comes back to the same server, by a cookie that evenkeel issues. Behind a gateway that caller is a
// browser; here it is a client with a Jar.
func ExampleWithSession() {
	first, stopFirst := backend()
	defer stopFirst()
	second, stopSecond := backend()
	defer stopSecond()
	key := make([]byte, 32) // the same for all replicas, from where secrets are kept
	_, _ = rand.Read(key)

	t, err := evenkeel.New("http://users.internal",
		evenkeel.WithResolver(discovery.Static{first, second}),
		evenkeel.WithBalancer(balancer.RoundRobin{}),
		evenkeel.WithSession(session.Policy{By: session.Cookie{Secret: session.NewSecret(key)}}))
	if err != nil {
		log.Fatal(err)
	}
	defer t.Close()

	jar, _ := cookiejar.New(nil)
	client := &http.Client{Transport: t, Jar: jar}
	servers := map[string]bool{}
	for range 10 {
		resp, err := client.Get("http://users.internal/cart")
		if err != nil {
			log.Fatal(err)
		}
		_ = resp.Body.Close()
		info, _ := evenkeel.InfoOf(resp)
		servers[info.Endpoint.Address] = true
	}
	fmt.Println("servers:", len(servers))
	s := t.Stats().Session
	fmt.Println("new:", s.New, "kept:", s.Kept, "moved:", s.Moved)
	// Output:
	// servers: 1
	// new: 1 kept: 9 moved: 0
}
