//go:build unix

package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/integration/internal/server"
)

// testTime is how long the whole of it may take, on a machine that is busy.
const testTime = time.Minute

// build builds the example as its readers do, and returns the program.
func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "gateway")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".")
	cmd.Dir = filepath.Join("..", "..", "examples", "gateway")
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	return program
}

// fleet starts three servers of a service, and returns them by name.
func fleet(t *testing.T, program, service string) (servers map[string]*server.Server, addresses string) {
	t.Helper()
	servers = map[string]*server.Server{}
	all := make([]string, 0, 3)
	for i := range 3 {
		name := fmt.Sprintf("%s-%d", service, i)
		servers[name] = startServer(t, name, program, nil, "-backend", service, "-name", name)
		all = append(all, servers[name].Address)
	}
	return servers, strings.Join(all, ",")
}

// tab is the page as a user sees it.
type tab struct{ ctx context.Context }

// newTab opens a browser that ends with the test, however that ends.
func newTab(t *testing.T, path string) tab {
	t.Helper()
	dir, err := os.MkdirTemp("", "evenkeel-browser-") //nolint:usetesting // the browser may still write while it ends
	require.NoError(t, err)
	// The processes of a browser outlive the script that Debian starts it with, which is all that
	// chromedp knows. So they are in a group that ends when nobody holds this pipe any more.
	ends, holds, err := os.Pipe()
	require.NoError(t, err)
	const shell = `exec 3<&0; (read -r _ <&3; kill -KILL 0) & "$@" 3<&- </dev/null; kill -KILL 0`
	hold := func(cmd *exec.Cmd) {
		cmd.Args = append([]string{"sh", "-c", shell, "sh"}, cmd.Args...)
		cmd.Path = "/bin/sh"
		cmd.Stdin = ends
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	}
	ctx, stop := context.WithTimeout(context.Background(), testTime)
	ctx, end := chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.NoSandbox, // which root must not have
		chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.UserDataDir(dir),
		chromedp.WSURLReadTimeout(patience),
		chromedp.ModifyCmdFunc(hold),
	)...)
	// The browser may be newer than what chromedp knows, and say what it does not understand.
	ctx, cancel := chromedp.NewContext(ctx, chromedp.WithErrorf(func(string, ...any) {}))
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // an error means that it ends less gently
		cancel()
		holds.Close()
		end()
		stop()
		ends.Close()
		eventually(t, func() bool { return os.RemoveAll(dir) == nil }, "the browser does not end")
	})
	return tab{ctx}
}

// do does what a user does, and waits until the browser has done it.
func (b tab) do(t *testing.T, actions ...chromedp.Action) {
	t.Helper()
	require.NoError(t, chromedp.Run(b.ctx, actions...))
}

// page is what it says.
type page struct {
	Server string `json:"server"`
	Visits int    `json:"visits"`
}

// read returns what the page says now. It fails if there is another, such as that of an error.
func (b tab) read(t *testing.T) (p page) {
	t.Helper()
	b.do(t, chromedp.Evaluate(`({
		server: document.getElementById('server').textContent,
		visits: Number(document.getElementById('visits').textContent),
	})`, &p))
	return p
}

func (b tab) reload(t *testing.T) page {
	t.Helper()
	b.do(t, chromedp.Reload())
	return b.read(t)
}

// state returns what the page says of its WebSocket.
func (b tab) state(t *testing.T) (state string) {
	t.Helper()
	b.do(t, chromedp.Evaluate(`document.getElementById('state').textContent`, &state))
	return state
}

// say sends messages in the chat, one by one, and returns who has answered each of them.
func (b tab) say(t *testing.T, messages int) (servers []string) {
	t.Helper()
	for i := range messages {
		var before int
		text := fmt.Sprintf("message %d", i)
		b.do(t, chromedp.Evaluate(`document.getElementById('log').children.length`, &before),
			chromedp.Evaluate(fmt.Sprintf(`document.getElementById('text').value = %q; document.getElementById('chat').requestSubmit()`, text), nil))
		var answer string
		eventually(t, func() bool {
			b.do(t, chromedp.Evaluate(fmt.Sprintf(`(document.getElementById('log').children[%d] || {}).textContent || ''`, before), &answer))
			return answer != ""
		}, "no answer to %s", text)
		server, said, _ := strings.Cut(answer, ": ")
		require.Equal(t, text, said)
		servers = append(servers, server)
	}
	return servers
}

// cookies returns what the browser keeps for the page, by name.
func (b tab) cookies(t *testing.T) map[string]*network.Cookie {
	t.Helper()
	all := map[string]*network.Cookie{}
	b.do(t, chromedp.ActionFunc(func(ctx context.Context) error {
		cookies, err := network.GetCookies().Do(ctx)
		for _, c := range cookies {
			all[c.Name] = c
		}
		return err
	}))
	return all
}

// stranger returns which server a caller gets who comes for the first time.
func stranger(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	found := regexp.MustCompile(`id="server">([^<]+)<`).FindSubmatch(text)
	require.NotNil(t, found, string(text))
	return string(found[1])
}

func TestBrowserStaysAtItsServers(t *testing.T) {
	t.Parallel()
	path := server.Program(t, "chromium-headless-shell", "chromium-headless-shell", "chromium", "google-chrome")
	program := build(t)
	web, webAddresses := fleet(t, program, "web")
	chat, chatAddresses := fleet(t, program, "chat")
	secret := []string{"GATEWAY_SECRET=" + strings.Repeat("0123456789abcdef", 4)}
	gateway := startServer(t, "gateway", program, secret, "-web", webAddresses, "-chat", chatAddresses)
	url := "http://" + gateway.Address + "/"
	b := newTab(t, path)

	// Log in, as a user does.
	b.do(t, chromedp.Navigate(url), chromedp.SendKeys("#name", "ada", chromedp.ByQuery),
		chromedp.Click("#login button", chromedp.ByQuery), chromedp.WaitVisible("#user", chromedp.ByQuery))
	eventually(t, func() bool { return b.state(t) == "connected" }, "the chat does not connect")
	cookies := b.cookies(t)
	for _, name := range []string{"web_at", "chat_at", "token", "visitor"} {
		c := cookies[name]
		if !assert.NotNil(t, c, "the browser has no cookie %s", name) {
			continue
		}
		assert.True(t, c.HTTPOnly, name)
		assert.Equal(t, "/", c.Path, name)
		assert.Equal(t, network.CookieSameSiteLax, c.SameSite, name)
		assert.Equal(t, "127.0.0.1", c.Domain, name)
		assert.Equal(t, name != "token", c.Session, "%s: only the token outlives the browser", name)
	}
	var readable string
	b.do(t, chromedp.Evaluate(`document.cookie`, &readable))
	assert.Empty(t, readable, "scripts read no cookie")

	// It stays.
	now := b.read(t)
	require.Contains(t, web, now.Server)
	b.stays(t, now)

	// Its server dies: it moves once, and nothing that it loads fails.
	dead := now.Server
	web[dead].Kill(t)
	now = b.reload(t)
	require.NotEqual(t, dead, now.Server)
	assert.Equal(t, 1, now.Visits, "what the other knew is gone with it")
	now = b.stays(t, now)

	// Its first server is back, and has new callers; it stays with the second.
	web[dead].Start(t)
	eventually(t, func() bool { return stranger(t, url) == dead }, "%s gets nobody", dead)
	now = b.stays(t, now)
	moved := b.cookies(t)
	assert.NotEqual(t, cookies["web_at"].Value, moved["web_at"].Value)
	assert.Equal(t, cookies["chat_at"].Value, moved["chat_at"].Value)

	// Its WebSocket stays while other servers come and go.
	eventually(t, func() bool { return b.state(t) == "connected" }, "the chat does not connect")
	mine := b.say(t, 1)[0]
	require.Contains(t, chat, mine)
	for name, other := range chat {
		if name == mine {
			continue
		}
		for _, server := range b.say(t, 5) {
			assert.Equal(t, mine, server)
		}
		other.Kill(t)
		for _, server := range b.say(t, 5) {
			assert.Equal(t, mine, server)
		}
		other.Start(t)
		for _, server := range b.say(t, 5) {
			assert.Equal(t, mine, server)
		}
	}
	assert.Equal(t, "connected", b.state(t))

	// And when its own one goes, the page hears it, and finds another.
	chat[mine].Kill(t)
	eventually(t, func() bool { return b.state(t) == "gone: reload" }, "the page does not hear it")
	assert.Equal(t, now.Server, b.reload(t).Server, "the other service is not concerned")
	eventually(t, func() bool { return b.state(t) == "connected" }, "the chat does not connect again")
	assert.NotEqual(t, mine, b.say(t, 1)[0])
}

// stays reloads the page ten times: it is from the same server each time, which counts.
func (b tab) stays(t *testing.T, was page) page {
	t.Helper()
	for range 10 {
		is := b.reload(t)
		assert.Equal(t, page{Server: was.Server, Visits: was.Visits + 1}, is)
		was = is
	}
	return was
}
