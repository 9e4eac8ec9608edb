package main

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/golang-jwt/jwt/v5"
)

const (
	tokenCookie = "token"
	tokenLasts  = 12 * time.Hour
	longestName = 64 // bytes
	// userHeader tells the services who asks. They believe it, so they must be reachable by the
	// gateway only.
	userHeader = "X-User"
)

// tokens issues and checks tokens, with the key that it is.
type tokens []byte

// login takes a name, and would take a password as well. Browsers keep the token in a cookie that
// scripts cannot read; other clients find it in the answer, and send it as Authorization: Bearer.
func (t tokens) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 4096)
	user := strings.TrimSpace(r.PostFormValue("user"))
	if user == "" {
		http.Error(w, "the form has no user", http.StatusBadRequest)
		return
	}
	if len(user) > longestName || strings.ContainsFunc(user, unicode.IsControl) { // it goes into a header
		http.Error(w, "no user has such a name", http.StatusBadRequest)
		return
	}
	now := time.Now()
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.RegisteredClaims{
		Subject: user, IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(tokenLasts)),
	}).SignedString([]byte(t))
	if err != nil {
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	http.SetCookie(w, &http.Cookie{
		Name: tokenCookie, Value: token, Path: "/", MaxAge: int(tokenLasts / time.Second),
		HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: r.TLS != nil,
	})
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Location", "/")
	w.WriteHeader(http.StatusSeeOther) // which scripts cannot read either, as browsers follow it
	fmt.Fprintln(w, token)
}

// user returns whose token a request has.
func (t tokens) user(r *http.Request) (string, error) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		cookie, err := r.Cookie(tokenCookie)
		if err != nil {
			return "", err
		}
		token = cookie.Value
	}
	var claims jwt.RegisteredClaims
	_, err := jwt.ParseWithClaims(token, &claims,
		func(*jwt.Token) (any, error) { return []byte(t), nil },
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}), jwt.WithExpirationRequired())
	if err == nil && claims.Subject == "" {
		err = errors.New("the token is nobody's")
	}
	return claims.Subject, err
}

// check refuses requests without a token, unless the path is public. What is behind learns the name,
// and not the token: with that, it could call others in the name of the user.
func (t tokens) check(next http.Handler, public bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, err := t.user(r)
		if err != nil && !public {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "log in first: curl -d user=NAME .../login", http.StatusUnauthorized)
			return
		}
		r = r.Clone(r.Context())
		cutToken(r.Header)
		r.Header.Del("Authorization")
		r.Header.Del(userHeader)
		// Servers that make variables of headers, as CGI does, take X_User for X-User.
		maps.DeleteFunc(r.Header, func(name string, _ []string) bool { return strings.Contains(name, "_") })
		if err == nil {
			r.Header.Set(userHeader, user)
		}
		next.ServeHTTP(w, r)
	})
}

// cutToken cuts the token out of the cookies. The others stay as they are, byte for byte: services
// may have some that net/http would not read, or would write in another way.
func cutToken(h http.Header) {
	lines := h["Cookie"]
	h.Del("Cookie")
	for _, line := range lines {
		pairs := slices.DeleteFunc(strings.Split(line, ";"), func(pair string) bool {
			name, _, _ := strings.Cut(pair, "=")
			return strings.TrimSpace(name) == tokenCookie
		})
		if line = strings.Trim(strings.Join(pairs, ";"), " "); line != "" {
			h.Add("Cookie", line)
		}
	}
}

// keepUser lets the services see what check has found, even if the client's Connection header names
// userHeader: the proxy removes what is named there.
func keepUser(r *httputil.ProxyRequest) {
	r.Out.Header.Del(userHeader)
	if user := r.In.Header.Get(userHeader); user != "" {
		r.Out.Header.Set(userHeader, user)
	}
}
