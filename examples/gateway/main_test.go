package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel"
	"github.com/evenkeel-go/evenkeel/health"
	"github.com/evenkeel-go/evenkeel/outcome"
)

// patience bounds every wait for something that takes moments on a machine with nothing else
// to do.
const patience = 30 * time.Second

const friend = "https://app.example.com"

// demo is a gateway on loopback, and the servers behind it.
type demo struct {
	url     string
	gateway *gateway
	fleets  map[string]*fleet
	stop    context.CancelFunc
	done    chan struct{}
	err     error // of serve, after done
}

// start starts three servers of each service, except where others are given, and the gateway.
func start(t *testing.T, servers map[string][]string) *demo {
	t.Helper()
	return startDraining(t, servers, 10*time.Millisecond)
}

// startDraining is start with a time in which the gateway says that it ends.
func startDraining(t *testing.T, servers map[string][]string, drainFor time.Duration) *demo {
	t.Helper()
	d := &demo{fleets: map[string]*fleet{}, done: make(chan struct{})}
	cfg := config{servers: map[string][]string{}, secret: []byte(strings.Repeat("0123456789", 4)), origins: []string{friend}, drainFor: drainFor}
	for _, r := range routes {
		if cfg.servers[r.service] = servers[r.service]; cfg.servers[r.service] != nil {
			continue
		}
		f, err := newFleet(r.service, 3)
		require.NoError(t, err)
		t.Cleanup(f.close)
		d.fleets[r.service], cfg.servers[r.service] = f, f.addresses
	}
	g, err := newGateway(cfg)
	require.NoError(t, err)
	d.gateway = g
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	d.url = "http://" + listener.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	d.stop = stop
	go func() {
		defer close(d.done)
		d.err = g.serve(ctx, listener)
	}()
	t.Cleanup(func() {
		stop()
		<-d.done
	})
	return d
}

// stand returns the address of a server that stands for those of a service.
func stand(t *testing.T, handler http.HandlerFunc) []string {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return []string{s.Listener.Addr().String()}
}

// browser returns a client that keeps cookies.
func browser(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Jar: jar, Transport: transport, Timeout: patience}
}

// user returns a client that has logged in.
func (d *demo) user(t *testing.T, name string) *http.Client {
	t.Helper()
	client := browser(t)
	resp, err := client.PostForm(d.url+"/login", url.Values{"user": {name}}) //nolint:noctx // the client has a time limit
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	return client
}

// token returns what a client logs in for that keeps no cookies.
func (d *demo) token(t *testing.T, name string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.url+"/login", strings.NewReader("user="+name))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultTransport.RoundTrip(req) // which does not follow
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusSeeOther, resp.StatusCode)
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return strings.TrimSpace(string(text))
}

// send sends a request, with pairs of header fields, and returns the answer and its body.
func (d *demo) send(t *testing.T, client *http.Client, method, path string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, d.url+path, http.NoBody)
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, string(text)
}

// profile is what the services users and orders answer.
type profile struct {
	Server, Name  string
	Visits, Bytes int
}

func (d *demo) profile(t *testing.T, client *http.Client, path string) (p profile) {
	t.Helper()
	resp, text := d.send(t, client, http.MethodGet, path)
	require.Equal(t, http.StatusOK, resp.StatusCode, text)
	require.NoError(t, json.Unmarshal([]byte(text), &p))
	return p
}

func TestPathsLeadToServices(t *testing.T) {
	t.Parallel()
	d := start(t, nil)
	client := d.user(t, "ada")

	assert.Regexp(t, "^users-[123]$", d.profile(t, client, "/users/grace").Server)
	assert.Equal(t, "ada", d.profile(t, client, "/users/me").Name)
	assert.Regexp(t, "^orders-[123]$", d.profile(t, client, "/orders/").Server)
	assert.Regexp(t, "^chat-[123]$", d.profile(t, client, "/chat").Server)
	_, page := d.send(t, client, http.MethodGet, "/")
	assert.Regexp(t, `<span id="server">web-[123]</span>`, page)
	assert.Contains(t, page, `<b id="user">ada</b>`)

	resp, _ := d.send(t, client, http.MethodGet, "/nothing")
	assert.Equal(t, http.StatusNotFound, resp.StatusCode, "as the service web says")
}

func TestCallersStayWhereTheirStateIs(t *testing.T) {
	t.Parallel()
	d := start(t, nil)
	client := d.user(t, "ada")
	first := d.profile(t, client, "/users/ada")
	page := regexp.MustCompile(`"server">(web-\d)<.*\n.*"visits">(\d+)<`)
	_, text := d.send(t, client, http.MethodGet, "/")
	web := page.FindStringSubmatch(text)
	require.NotNil(t, web, text)
	for range 20 {
		next := d.profile(t, client, "/users/ada")
		assert.Equal(t, first.Server, next.Server)
		assert.Equal(t, first.Visits+1, next.Visits)
		first = next
		_, text := d.send(t, client, http.MethodGet, "/")
		assert.Equal(t, web[1], page.FindStringSubmatch(text)[1])
	}

	orders := map[string]bool{}
	for range 30 {
		orders[d.profile(t, client, "/orders/").Server] = true
	}
	assert.Len(t, orders, 3, "without state, all servers take part")
	address, err := url.Parse(d.url)
	require.NoError(t, err)
	names := map[string]bool{}
	for _, c := range client.Jar.Cookies(address) {
		names[c.Name] = true
	}
	assert.Equal(t, map[string]bool{"token": true, "users_at": true, "web_at": true, "visitor": true}, names)
}

func TestCallersMoveOnce(t *testing.T) {
	t.Parallel()
	d := start(t, nil)
	client := d.user(t, "ada")
	was := d.profile(t, client, "/users/ada").Server
	for i, b := range d.fleets["users"].backends {
		if was == "users-"+string(rune('1'+i)) {
			b.close()
		}
	}
	is := d.profile(t, client, "/users/ada").Server
	assert.NotEqual(t, was, is)
	for i := range 10 {
		now := d.profile(t, client, "/users/ada")
		assert.Equal(t, is, now.Server)
		assert.Equal(t, i+2, now.Visits)
	}
}

func TestProtectedPathsNeedAToken(t *testing.T) {
	t.Parallel()
	d := start(t, nil)
	sign := func(method jwt.SigningMethod, key any, claims jwt.RegisteredClaims) string {
		token, err := jwt.NewWithClaims(method, claims).SignedString(key)
		require.NoError(t, err)
		return token
	}
	later, before := jwt.NewNumericDate(time.Now().Add(time.Hour)), jwt.NewNumericDate(time.Now().Add(-time.Hour))
	good := d.token(t, "ada")
	ours := []byte(d.gateway.tokens)

	for _, row := range []struct{ name, token string }{
		{"none", ""},
		{"nonsense", "nonsense"},
		{"changed", good[:len(good)-4] + "AAAA"},
		{"another's", sign(jwt.SigningMethodHS256, []byte("another secret"), jwt.RegisteredClaims{Subject: "ada", ExpiresAt: later})},
		{"unsigned", sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, jwt.RegisteredClaims{Subject: "ada", ExpiresAt: later})},
		{"of another kind", sign(jwt.SigningMethodHS512, ours, jwt.RegisteredClaims{Subject: "ada", ExpiresAt: later})},
		{"expired", sign(jwt.SigningMethodHS256, ours, jwt.RegisteredClaims{Subject: "ada", ExpiresAt: before})},
		{"for ever", sign(jwt.SigningMethodHS256, ours, jwt.RegisteredClaims{Subject: "ada"})},
		{"nobody's", sign(jwt.SigningMethodHS256, ours, jwt.RegisteredClaims{ExpiresAt: later})},
	} {
		for _, path := range []string{"/users/ada", "/orders/", "/chat", "/api/dashboard"} {
			for _, header := range [][]string{{"Authorization", "Bearer " + row.token}, {"Cookie", "token=" + row.token}} {
				resp, _ := d.send(t, browser(t), http.MethodGet, path, header...)
				assert.Equal(t, http.StatusUnauthorized, resp.StatusCode, "%s, token %s, %s", path, row.name, header[0])
				assert.Equal(t, "Bearer", resp.Header.Get("WWW-Authenticate"))
			}
		}
		resp, page := d.send(t, browser(t), http.MethodGet, "/", "Authorization", "Bearer "+row.token, "X-User", "root")
		assert.Equal(t, http.StatusOK, resp.StatusCode)
		assert.Contains(t, page, `id="login"`, "the page is for everybody, and knows nobody")
	}
	valid := sign(jwt.SigningMethodHS256, ours, jwt.RegisteredClaims{Subject: "ada", ExpiresAt: later})
	for _, token := range []string{good, valid} { // or the rows above may be refused for another reason
		resp, _ := d.send(t, browser(t), http.MethodGet, "/users/me", "Authorization", "Bearer "+token)
		assert.Equal(t, http.StatusOK, resp.StatusCode)
	}
}

func TestLoginNeedsAName(t *testing.T) {
	t.Parallel()
	d := start(t, nil)
	for _, body := range []string{"", "user=", "user=%20", "user=" + strings.Repeat("a", 5000)} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.url+"/login", strings.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := browser(t).Do(req)
		require.NoError(t, err)
		resp.Body.Close()
		assert.Equal(t, http.StatusBadRequest, resp.StatusCode)
		assert.Empty(t, resp.Cookies())
	}
}

// Names with control characters, or very long ones, get no token: they are to be sent in a header.
func TestLoginRefusesUnfitNames(t *testing.T) {
	t.Parallel()
	d := start(t, nil)
	for _, row := range []struct {
		name string
		want int
	}{
		{"ada\nbob", http.StatusBadRequest},
		{"ada\x00", http.StatusBadRequest},
		{"ada\x7fbob", http.StatusBadRequest},
		{"ada\u0085bob", http.StatusBadRequest},
		{strings.Repeat("a", 65), http.StatusBadRequest},
		{strings.Repeat("é", 33), http.StatusBadRequest},
		{strings.Repeat("a", 64), http.StatusSeeOther},
		{"Zoë de la Cruz", http.StatusSeeOther},
		{" ada\n", http.StatusSeeOther}, // what is around a name is no part of it
	} {
		form := strings.NewReader(url.Values{"user": {row.name}}.Encode())
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.url+"/login", form)
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := http.DefaultTransport.RoundTrip(req) // which does not follow
		require.NoError(t, err)
		resp.Body.Close()
		assert.Equal(t, row.want, resp.StatusCode, "%q", row.name)
		assert.Equal(t, row.want == http.StatusSeeOther, len(resp.Cookies()) == 1, "%q", row.name)
	}
}

func TestServicesSeeWhoAsksAndNoToken(t *testing.T) {
	t.Parallel()
	seen := make(chan *http.Request, 1)
	d := start(t, map[string][]string{"orders": stand(t, func(_ http.ResponseWriter, r *http.Request) { seen <- r })})
	token := d.token(t, "ada")
	d.send(t, browser(t), http.MethodGet, "/orders/7?x=1&x=2", "Authorization", "Bearer "+token, "Cookie", "a=1; token="+token+"; b=2",
		"X-User", "root", "X-Forwarded-For", "10.9.8.7", "X-Forwarded-Host", "elsewhere", "Forwarded", "for=10.9.8.7")
	r := <-seen
	assert.Equal(t, "/orders/7?x=1&x=2", r.RequestURI)
	assert.Equal(t, strings.TrimPrefix(d.url, "http://"), r.Host)
	assert.Equal(t, []string{"ada"}, r.Header["X-User"])
	assert.Equal(t, []string{"127.0.0.1"}, r.Header["X-Forwarded-For"])
	assert.Equal(t, []string{r.Host}, r.Header["X-Forwarded-Host"])
	assert.Equal(t, []string{"http"}, r.Header["X-Forwarded-Proto"])
	assert.Empty(t, r.Header["Forwarded"])
	assert.Empty(t, r.Header["Authorization"])
	assert.Equal(t, []string{"a=1; b=2"}, r.Header["Cookie"])
}

// Proxies remove the headers that Connection names, and the one that says who asks must stay.
func TestClientsCannotRemoveTheirName(t *testing.T) {
	t.Parallel()
	seen := make(chan http.Header, 1)
	d := start(t, map[string][]string{"web": stand(t, func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header })})
	bearer := "Bearer " + d.token(t, "ada")
	for _, row := range []struct {
		connection, authorization string
		want                      []string
	}{
		{"keep-alive", bearer, []string{"ada"}},
		{"X-User", bearer, []string{"ada"}},
		{"close, x-user", bearer, []string{"ada"}},
		{"keep-alive", "", nil},
		{"close, X-User", "", nil},
	} {
		d.send(t, browser(t), http.MethodGet, "/", "Connection", row.connection, "Authorization", row.authorization, "X-User", "root")
		assert.Equal(t, row.want, (<-seen)["X-User"], "%+v", row)
	}
}

// Many servers take X_User for X-User, so that no header with an underscore gets to them.
func TestHeadersWithUnderscoresStayOutside(t *testing.T) {
	t.Parallel()
	seen := make(chan http.Header, 1)
	d := start(t, map[string][]string{"web": stand(t, func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header })})
	token := d.token(t, "ada")
	for _, row := range []struct {
		name   string
		passes bool
	}{
		{"X_User", false},
		{"x_user", false},
		{"X_Forwarded-For", false},
		{"X-Forwarded_Proto", false},
		{"_", false},
		{"X-Request-Id", true},
	} {
		for _, authorization := range []string{"Bearer " + token, ""} {
			d.send(t, browser(t), http.MethodGet, "/", "Authorization", authorization, row.name, "root")
			header := <-seen
			assert.Equal(t, row.passes, header.Get(row.name) != "", row.name)
			assert.Equal(t, authorization != "", header.Get("X-User") == "ada", row.name)
		}
	}
}

// The services get their cookies as the browser wrote them, all but the token.
func TestCookiesPassUnchanged(t *testing.T) {
	t.Parallel()
	seen := make(chan http.Header, 1)
	d := start(t, map[string][]string{"orders": stand(t, func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header })})
	token := "token=" + d.token(t, "ada")
	for _, row := range []struct{ lines, want []string }{
		{[]string{token}, nil},
		{[]string{token + "; a=1"}, []string{"a=1"}},
		{[]string{"a=1;" + token}, []string{"a=1"}},
		{[]string{"a=1; " + token + "; b=2"}, []string{"a=1; b=2"}},
		{[]string{"a=1", token, "b=2; " + token}, []string{"a=1", "b=2"}},
		{[]string{token + ";a=1; token=other; token;b=2", "token = other"}, []string{"a=1;b=2"}},
		{[]string{token + `; json={"x":1}; sp=a b; q="v"; comma=a,b;; novalue;  wéird=x;`}, []string{`json={"x":1}; sp=a b; q="v"; comma=a,b;; novalue;  wéird=x;`}},
		{[]string{token + "; Token=1; my-token=2; tokens=3; a=token=4"}, []string{"Token=1; my-token=2; tokens=3; a=token=4"}},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, d.url+"/orders/", http.NoBody)
		require.NoError(t, err)
		req.Header["Cookie"] = row.lines
		resp, err := browser(t).Do(req)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, http.StatusOK, resp.StatusCode, row.lines)
		assert.Equal(t, row.want, (<-seen)["Cookie"], row.lines)
	}
}

func TestOnlyChosenSitesMayCall(t *testing.T) {
	t.Parallel()
	d := start(t, nil)
	preflight := func(origin string) http.Header {
		resp, _ := d.send(t, browser(t), http.MethodOptions, "/users/ada", "Origin", origin,
			"Access-Control-Request-Method", http.MethodPut, "Access-Control-Request-Headers", "authorization")
		assert.Equal(t, http.StatusNoContent, resp.StatusCode)
		return resp.Header
	}
	allowed := preflight(friend)
	assert.Equal(t, friend, allowed.Get("Access-Control-Allow-Origin"))
	assert.Equal(t, "true", allowed.Get("Access-Control-Allow-Credentials"))
	assert.Equal(t, http.MethodPut, allowed.Get("Access-Control-Allow-Methods"))
	assert.Equal(t, "authorization", allowed.Get("Access-Control-Allow-Headers"))
	for _, origin := range []string{"https://evil.example", "null", "https://app.example.com.evil.example", "http://app.example.com"} {
		assert.Empty(t, preflight(origin).Get("Access-Control-Allow-Origin"), origin)
	}

	client := d.user(t, "ada")
	for origin, status := range map[string]int{friend: http.StatusOK, "https://evil.example": http.StatusForbidden, d.url: http.StatusOK} {
		resp, _ := d.send(t, client, http.MethodPost, "/orders/", "Origin", origin)
		assert.Equal(t, status, resp.StatusCode, "a form of %s", origin)
	}
	resp, _ := d.send(t, client, http.MethodGet, "/orders/", "Origin", "https://evil.example")
	assert.Empty(t, resp.Header.Get("Access-Control-Allow-Origin"), "the browser keeps the answer from the script")

	for _, origin := range []string{"*", "app.example.com"} {
		_, err := newGateway(config{secret: make([]byte, 32), origins: []string{origin}})
		assert.Error(t, err, origin)
	}
}

func TestDashboardShowsWhatIsThere(t *testing.T) {
	t.Parallel()
	d := start(t, nil)
	client := d.user(t, "ada")
	dashboard := func() (status int, missing []string) {
		resp, text := d.send(t, client, http.MethodGet, "/api/dashboard")
		var page map[string]part
		require.NoError(t, json.Unmarshal([]byte(text), &page), text)
		require.Len(t, page, 3)
		for name, p := range page {
			assert.NotEqual(t, p.Unavailable == "", p.Data == nil, name)
			assert.NotContains(t, p.Unavailable, "127.0.0.1")
			if p.Unavailable != "" {
				missing = append(missing, name)
			}
		}
		return resp.StatusCode, missing
	}
	server := d.profile(t, client, "/users/me").Server
	for range 5 {
		_, text := d.send(t, client, http.MethodGet, "/api/dashboard")
		assert.Contains(t, text, `"name":"ada","server":"`+server+`"`, "where ada's state is")
	}
	status, missing := dashboard()
	assert.Equal(t, http.StatusOK, status)
	assert.Empty(t, missing)

	d.fleets["orders"].close()
	status, missing = dashboard()
	assert.Equal(t, http.StatusOK, status)
	assert.Equal(t, []string{"orders"}, missing)

	d.fleets["users"].close()
	d.fleets["chat"].close()
	status, missing = dashboard()
	assert.Equal(t, http.StatusServiceUnavailable, status)
	assert.Len(t, missing, 3)
}

func TestDashboardDoesNotWaitForTheSlow(t *testing.T) {
	t.Parallel()
	d := start(t, map[string][]string{
		"users":  stand(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }),
		"orders": stand(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }),
		"chat":   stand(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "no JSON") }),
	})
	resp, text := d.send(t, d.user(t, "ada"), http.MethodGet, "/api/dashboard")
	assert.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	assert.JSONEq(t, `{
		"profile": {"unavailable": "Gateway Timeout"},
		"orders": {"unavailable": "the service says 418"},
		"chat": {"unavailable": "the answer is broken"}
	}`, text)
}

func (d *demo) dial(t *testing.T, client *http.Client, origin string) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	patient := *client
	patient.Timeout = 0 // it would be that of the connection
	return websocket.Dial(ctx, d.url+"/chat", &websocket.DialOptions{HTTPClient: &patient, HTTPHeader: http.Header{"Origin": {origin}}})
}

func TestWebSocketsPass(t *testing.T) {
	t.Parallel()
	d := start(t, nil)
	client := d.user(t, "ada")
	conn, _, err := d.dial(t, client, d.url)
	require.NoError(t, err)
	defer func() { _ = conn.CloseNow() }()
	server := ""
	for range 20 {
		require.NoError(t, conn.Write(t.Context(), websocket.MessageText, []byte("ahoy")))
		_, text, err := conn.Read(t.Context())
		require.NoError(t, err)
		name, rest, _ := strings.Cut(string(text), ": ")
		assert.Equal(t, "ahoy", rest)
		if server == "" {
			server = name
		}
		assert.Equal(t, server, name)
	}
	assert.Regexp(t, "^chat-[123]$", server)
	require.NoError(t, conn.Close(websocket.StatusNormalClosure, ""))
	assert.Equal(t, server, d.profile(t, client, "/chat").Server, "the next request goes where the connection was")

	_, resp, err := d.dial(t, browser(t), d.url)
	require.Error(t, err)
	assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
	_, resp, err = d.dial(t, client, "https://evil.example")
	require.Error(t, err)
	assert.Equal(t, http.StatusForbidden, resp.StatusCode, "pages of other sites get no connection")
}

// A body is on its way to the server before its end is known.
func TestBodiesAreStreamed(t *testing.T) {
	t.Parallel()
	begun := make(chan string)
	d := start(t, map[string][]string{"orders": stand(t, func(w http.ResponseWriter, r *http.Request) {
		first := make([]byte, 5)
		_, _ = io.ReadFull(r.Body, first)
		begun <- string(first)
		rest, _ := io.ReadAll(r.Body)
		_, _ = w.Write(rest)
	})})
	body, writer := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.url+"/orders/", body)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+d.token(t, "ada"))
	go func() {
		io.WriteString(writer, "first")
		<-begun
		io.WriteString(writer, "rest")
		writer.Close()
	}()
	resp, err := browser(t).Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	assert.Equal(t, "rest", string(text))
}

func TestAnswersTellNoAddresses(t *testing.T) {
	t.Parallel()
	d := start(t, nil)
	client := d.user(t, "ada")
	d.fleets["orders"].close()
	resp, text := d.send(t, client, http.MethodGet, "/orders/")
	assert.Equal(t, http.StatusBadGateway, resp.StatusCode)
	assert.Equal(t, "Bad Gateway\n", text)
}

func TestStatusOf(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		err  error
		want int
	}{
		{errors.New("anything"), http.StatusBadGateway},
		{&evenkeel.Error{Reason: outcome.Attempts, Err: errors.New("refused")}, http.StatusBadGateway},
		{&evenkeel.Error{Reason: outcome.NotIdempotent, Err: errors.New("reset")}, http.StatusBadGateway},
		{&evenkeel.Error{Reason: outcome.NoEndpoints, Err: errors.New("none")}, http.StatusServiceUnavailable},
		{&evenkeel.Error{Reason: outcome.Open, Err: errors.New("open")}, http.StatusServiceUnavailable},
		{&evenkeel.Error{Reason: outcome.Limiter, Err: errors.New("full")}, http.StatusServiceUnavailable},
		{&evenkeel.Error{Reason: outcome.Closed, Err: evenkeel.ErrClosed}, http.StatusServiceUnavailable},
		{&evenkeel.Error{Reason: outcome.Deadline, Err: context.DeadlineExceeded}, http.StatusGatewayTimeout},
	} {
		assert.Equal(t, row.want, statusOf(row.err), row.err)
	}
}

func TestHealthTellsOfTheServices(t *testing.T) {
	t.Parallel()
	d := start(t, nil)
	client := browser(t)
	report := func(header ...string) (int, health.Report) {
		resp, text := d.send(t, client, http.MethodGet, "/health", header...)
		var r health.Report
		require.NoError(t, json.Unmarshal([]byte(text), &r), text)
		return resp.StatusCode, r
	}
	status, r := report()
	assert.Equal(t, http.StatusOK, status)
	assert.Equal(t, health.Up, r.Status)
	assert.Len(t, r.Details, 4)

	d.fleets["orders"].close()
	require.Eventually(t, func() bool { // probes must have failed
		_, r = report()
		return r.Status == health.Degraded
	}, patience, 50*time.Millisecond)
	assert.Equal(t, health.Down, r.Details["orders"].Status)
	assert.Contains(t, r.Details["orders"].Error, " of 3 endpoints are available")
	status, r = report("X-Forwarded-For", "192.0.2.1")
	assert.Equal(t, http.StatusOK, status, "the others are there")
	assert.Equal(t, "failed", r.Details["orders"].Error, "it is not for everybody")
}

// Whatever a proxy or a client writes into X-Forwarded-For, who has it is not from this machine.
func TestInsidersComeDirectly(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		from      string
		forwarded []string
		want      bool
	}{
		{"127.0.0.1:1", nil, true},
		{"[::1]:1", nil, true},
		{"[::ffff:127.0.0.1]:1", nil, true},
		{"192.0.2.1:1", nil, false},
		{"nonsense", nil, false},
		{"127.0.0.1:1", []string{"192.0.2.1"}, false},
		{"127.0.0.1:1", []string{"", "192.0.2.1"}, false},
		{"127.0.0.1:1", []string{""}, false},
	} {
		r := httptest.NewRequest(http.MethodGet, "/health", http.NoBody)
		r.RemoteAddr = row.from
		for _, line := range row.forwarded {
			r.Header.Add("X-Forwarded-For", line)
		}
		assert.Equal(t, row.want, isInsider(r), "%+v", row)
	}
}

// With a request and a WebSocket under way: the one ends well, the other is cut, and nothing
// stays behind.
func TestShutdown(t *testing.T) { //nolint:paralleltest // it counts goroutines
	before := runtime.NumGoroutine()
	t.Run("with a request and a WebSocket", func(t *testing.T) {
		arrived, end := make(chan struct{}), make(chan struct{})
		finish := sync.OnceFunc(func() { close(end) })
		defer finish()
		orders := stand(t, func(w http.ResponseWriter, _ *http.Request) {
			close(arrived)
			<-end
			io.WriteString(w, "done")
		})
		d := startDraining(t, map[string][]string{"orders": orders}, 5*time.Second)
		client := d.user(t, "ada")
		conn, _, err := d.dial(t, client, d.url)
		require.NoError(t, err)
		defer func() { _ = conn.CloseNow() }()
		slow := make(chan string, 1)
		go func() {
			resp, err := client.Get(d.url + "/orders/") //nolint:noctx // the client has a time limit
			if err != nil {
				slow <- err.Error()
				return
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			slow <- fmt.Sprint(resp.StatusCode, string(text), err)
		}()
		<-arrived

		d.stop()
		require.Eventually(t, func() bool {
			resp, _ := d.send(t, client, http.MethodGet, "/health")
			return resp.StatusCode == http.StatusServiceUnavailable
		}, patience, 5*time.Millisecond)
		require.Eventually(t, func() bool {
			resp, err := client.Get(d.url + "/health/live") //nolint:noctx // the client has a time limit
			if err == nil {
				resp.Body.Close()
			}
			return err != nil
		}, patience, 20*time.Millisecond)
		require.NoError(t, conn.Write(t.Context(), websocket.MessageText, []byte("still there?")))
		_, _, err = conn.Read(t.Context())
		require.NoError(t, err, "it lives as long as requests do")
		finish()
		assert.Equal(t, "200done<nil>", <-slow)
		_, _, err = conn.Read(t.Context())
		require.Error(t, err)
		<-d.done
		assert.NoError(t, d.err)
	})
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			stacks = stacks[:runtime.Stack(stacks, true)]
			require.Fail(t, "goroutines stay behind", "there were %d, and now:\n%s", before, stacks)
		}
	}
}

func TestSecretFrom(t *testing.T) {
	t.Parallel()
	hexed := strings.Repeat("0f", 32)
	secret, err := secretFrom(hexed)
	require.NoError(t, err)
	assert.Len(t, secret, 32)
	secret, err = secretFrom("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
	require.NoError(t, err)
	assert.Equal(t, "01234567890123456789012345678901", string(secret))
	one, err := secretFrom("")
	require.NoError(t, err)
	other, err := secretFrom("")
	require.NoError(t, err)
	assert.NotEqual(t, one, other)
	for _, wrong := range []string{"0f0f", "no secret", hexed[1:]} {
		_, err := secretFrom(wrong)
		require.Error(t, err)
		assert.NotContains(t, err.Error(), wrong)
	}
}

// The program as its readers run it: with servers of its own, and with one that is a process.
func TestProgram(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("a program cannot send an interrupt on Windows")
	}
	binary := filepath.Join(t.TempDir(), "gateway")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput()
	require.NoError(t, err, string(out))
	run := func(pattern string, args ...string) (cmd *exec.Cmd, found string) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		t.Cleanup(cancel)
		cmd = exec.CommandContext(ctx, binary, append(args, "-listen", "127.0.0.1:0")...)
		stdout, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		t.Cleanup(func() {
			_ = cmd.Process.Kill() // if the test has failed
			_ = cmd.Wait()
		})
		line, err := bufio.NewReader(stdout).ReadString('\n')
		require.NoError(t, err)
		groups := regexp.MustCompile(pattern).FindStringSubmatch(line)
		require.NotNil(t, groups, line)
		return cmd, groups[1]
	}
	server, address := run(`^solo is at (\S+)`, "-backend", "web", "-name", "solo")
	gateway, at := run(`^the gateway is at (\S+):`, "-web", address, "-drain", "10ms")
	d := &demo{url: at}
	_, page := d.send(t, browser(t), http.MethodGet, "/")
	assert.Contains(t, page, `"server">solo<`)
	assert.Regexp(t, "^orders-[123]$", d.profile(t, d.user(t, "ada"), "/orders/").Server)
	for _, cmd := range []*exec.Cmd{gateway, server} {
		require.NoError(t, cmd.Process.Signal(os.Interrupt))
		assert.NoError(t, cmd.Wait())
	}
}
