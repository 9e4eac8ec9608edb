package health

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/evenkeel-go/evenkeel/internal/call"
	"github.com/evenkeel-go/evenkeel/internal/field"
	"github.com/evenkeel-go/evenkeel/internal/pushback"
)

// HTTP asks by a request, which goes out as those of the traffic do: with the same Host, TLS
// settings and server name, over connections of its own. What is put around attempts
// (evenkeel.WithAttempt, balancer.Config.Wrap) is not put around probes. Redirects are not followed.
// Of a body, at most 64 KiB are read.
type HTTP struct {
	// Method is that of the request. Empty means GET.
	Method string

	// Path is what to ask for, with a query if there is one. Empty means /health.
	Path string

	// Host is the Host header. Empty means that of the target.
	Host string

	// Port is where to ask, if it is not the port of the endpoint. It makes no difference to
	// Unix sockets, and to endpoints whose transports are the user's own.
	Port int

	// Header is sent with the request.
	Header http.Header

	// Statuses are those of an endpoint that can serve. None means 200 to 299.
	Statuses []Statuses

	// BodyMatch is a regular expression (RE2) that the body must match somewhere. Empty means
	// that the body is not looked at.
	BodyMatch string

	// Report reads the body as the [Report] of a [Handler]. An endpoint that says DOWN is
	// unhealthy at once, and the reason is kept, unless it is that it is about to leave
	// ([ErrDraining]); UP and DEGRADED are good if the status is, too.
	// What is no report is judged by the status alone.
	Report bool

	// DrainOn404 takes 404 for the answer of an endpoint that is about to leave, as HAProxy's
	// disable-on-404 does.
	DrainOn404 bool

	// HeedRetryAfter leaves an endpoint that answers with a Retry-After alone for as long, up to
	// Check.MaxDownInterval.
	HeedRetryAfter bool

	// NewConnections opens a connection for each probe. Otherwise one is kept for each endpoint,
	// which is cheaper, and does not find out that the endpoint accepts no new ones.
	NewConnections bool
}

// Statuses is a range of status codes, its ends included.
type Statuses struct{ From, To int }

// maxBody is how much of a body is read.
const maxBody = 64 << 10

// clone returns a probe that shares nothing with the caller, who may change its own.
func (p HTTP) clone() HTTP {
	p.Header, p.Statuses = p.Header.Clone(), slices.Clone(p.Statuses)
	return p
}

func (p HTTP) withDefaults() HTTP {
	field.Default(&p.Method, http.MethodGet)
	field.Default(&p.Path, "/health")
	if len(p.Statuses) == 0 {
		p.Statuses = []Statuses{{200, 299}}
	}
	return p
}

// Validate implements [Probe].
func (p HTTP) Validate() error {
	var errs field.Errors
	checkPort(&errs, p.Port)
	for i, s := range p.Statuses {
		errs.Check(s.From >= 100 && s.To <= 599 && s.From <= s.To, fmt.Sprintf("Statuses[%d]", i), s,
			"must be from 100 to 599, the lower one first")
	}
	errs.Check(p.Method != http.MethodHead || (p.BodyMatch == "" && !p.Report), "Method", p.Method, "brings no body to be looked at")
	errs.Check(p.Header.Get("Host") == "", "Header", "Host", "is not sent: use Host")
	if _, err := regexp.Compile(p.BodyMatch); err != nil {
		errs.Add("BodyMatch", p.BodyMatch, "must be a regular expression: "+err.Error())
	}
	d := p.withDefaults()
	u, err := url.ParseRequestURI(d.Path)
	if err != nil || d.Path[0] != '/' || strings.ContainsFunc(u.RawQuery, func(r rune) bool { return r <= ' ' || r > '~' }) {
		errs.Add("Path", p.Path, "must be a path that begins with /, and a query if there is one, escaped as in a URL")
		u = &url.URL{Path: "/"}
	}
	u.Scheme, u.Host = "http", "placeholder"
	errs.Of("Request", call.Problems(&http.Request{Method: d.Method, URL: u, Host: p.Host, Header: p.Header}))
	return errs.Err()
}

func (p HTTP) prober() prober {
	p = p.withDefaults()
	u, _ := url.ParseRequestURI(p.Path) // it is valid
	w := &webProber{HTTP: p, url: u}
	if p.BodyMatch != "" {
		w.match = regexp.MustCompile(p.BodyMatch)
	}
	return w
}

// webProber asks over HTTP.
type webProber struct {
	HTTP
	url   *url.URL
	match *regexp.Regexp // nil if the body is not looked at
}

func (p *webProber) ask(ctx context.Context, l *line) answer {
	u := *p.url
	req := &http.Request{Method: p.Method, URL: &u, Host: p.Host, Header: p.Header.Clone(), Close: p.NewConnections}
	if req.Header == nil {
		req.Header = http.Header{}
	}
	if _, set := req.Header["Idempotency-Key"]; !set && l.lines.custom == nil {
		req.Header["Idempotency-Key"] = nil // is not sent, and lets net/http use a new connection if the server has just closed the old one
	}
	resp, err := l.send(req.WithContext(ctx), l.lines.web, p.Port)
	if err != nil {
		l.drop()
		return answer{err: err}
	}
	a := answer{err: p.judge(resp, l)}
	if p.HeedRetryAfter && a.err != nil {
		a.wait, _ = pushback.Wait(resp.StatusCode, resp.Header, func() time.Time { return l.lines.clock.Now() })
	}
	return a
}

// judge says what the response means, and closes it.
func (p *webProber) judge(resp *http.Response, l *line) error {
	accepted := slices.ContainsFunc(p.Statuses, func(s Statuses) bool { return resp.StatusCode >= s.From && resp.StatusCode <= s.To })
	var body []byte
	if p.Report || (p.match != nil && accepted) {
		var err error
		body, err = io.ReadAll(io.LimitReader(resp.Body, maxBody))
		if err != nil {
			_ = resp.Body.Close()
			l.drop()
			return fmt.Errorf("health: the body of the answer (%d) broke: %w", resp.StatusCode, err)
		}
	}
	call.Drain(resp, maxBody, l.lines.clock)
	switch {
	case p.DrainOn404 && resp.StatusCode == http.StatusNotFound:
		return ErrDraining
	case p.Report:
		if err := reported(body); err != nil {
			return err
		}
	}
	switch {
	case !accepted:
		return fmt.Errorf("health: the answer was %d", resp.StatusCode)
	case p.match != nil && !p.match.Match(body):
		return errNoMatch
	}
	return nil
}

var errNoMatch = errors.New("health: the body of the answer is not what it should be")

// reported returns what is wrong according to a report, nil if nothing is or it is no report.
func reported(body []byte) error {
	var r struct { // a Report, of which nothing else can hide these
		Status  ReportStatus    `json:"status"`
		Details json.RawMessage `json:"details"`
	}
	_ = json.Unmarshal(body, &r) // as far as it can be read
	if r.Status != Down {
		return nil
	}
	var details map[string]struct {
		Status ReportStatus `json:"status"`
		Error  string       `json:"error"`
	}
	_ = json.Unmarshal(r.Details, &details)
	if details[serverEntry].Error == textDraining {
		return ErrDraining
	}
	var names []string
	for name, c := range details {
		if c.Status == Down {
			names = append(names, fmt.Sprintf("%.100q", name))
		}
	}
	if len(names) == 0 {
		return ErrDown
	}
	slices.Sort(names)
	if more := len(names) - maxNames; more > 0 {
		names = append(names[:maxNames], fmt.Sprintf("%d more", more))
	}
	return fmt.Errorf("%w: %s", ErrDown, strings.Join(names, ", "))
}

// maxNames is how many components of a report an error names.
const maxNames = 10
