package session

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// telltales are what a secret looks like in all the ways in which bytes are printed.
func telltales(secrets ...string) (all []string) {
	for _, s := range secrets {
		part := s[:12]
		numbers := strings.Trim(fmt.Sprint([]byte(part)), "[]")
		all = append(all,
			part, hex.EncodeToString([]byte(part)), strings.ToUpper(hex.EncodeToString([]byte(part))), fmt.Sprintf("% x", part),
			base64.StdEncoding.EncodeToString([]byte(part)), numbers, strings.ReplaceAll(numbers, " ", ","),
			strings.TrimSuffix(fmt.Sprintf("%#v", []byte(part)), "}")[len("[]byte{"):],
		)
	}
	return all
}

// everyVerb includes those that are mistakes, which fmt shows in its own way.
var everyVerb = []string{
	"%v", "%+v", "%#v", "%10.5v", "%s", "%q", "%x", "%X", "% x", "%d", "%o", "%b", "%c", "%U", "%t", "%e", "%p", "%T", "%y",
}

// No way of printing a policy, a keeper, or what is wrong with one, tells the secret.
func TestSecret_IsNotPrinted_S03(t *testing.T) {
	t.Parallel()
	const current, previous = "correct horse battery staple 0815", "troubador&3 is harder to remember"
	const short = "fifteen letters" // and so refused, with the value in the error
	good := Cookie{Secret: NewSecret([]byte(current)), Previous: NewSecret([]byte(previous))}
	bad := Cookie{Name: "a b", Secret: NewSecret([]byte(short)), Previous: NewSecret([]byte(short))}
	twice := Cookie{Secret: NewSecret([]byte(current)), Previous: NewSecret([]byte(current))}
	keeper, err := NewKeeper(Config{Policy: &Policy{By: good}, Target: target})
	require.NoError(t, err)
	keeper.Endpoints(listed("a:80"))
	_, made := NewKeeper(Config{Policy: &Policy{By: bad}})
	require.Error(t, made)

	things := map[string]any{
		"secret": good.Secret, "cookie": good, "to a cookie": &good, "bad cookie": bad,
		"policy": Policy{By: good}, "to a policy": &Policy{By: good}, "with defaults": Policy{By: good}.WithDefaults(),
		"config": Config{Policy: &Policy{By: good}}, "list": []Secret{good.Secret, good.Previous}, "map": map[string]Kind{"by": good},
		"keeper": keeper, "status": keeper.Status(), "transport": keeper.Transport(nil),
		"error of a policy": Policy{By: bad}.Validate(), "error of a keeper": made, "error of Use": keeper.Use(&Policy{By: twice}),
	}
	var joined interface{ Unwrap() []error }
	require.ErrorAs(t, made, &joined)
	for i, one := range joined.Unwrap() {
		things[fmt.Sprintf("problem %d", i)] = one
	}
	secrets := telltales(current, previous, short)
	check := func(printed, about string) {
		for _, s := range secrets {
			assert.NotContains(t, printed, s, about)
		}
	}
	for name, thing := range things {
		for _, verb := range everyVerb {
			check(fmt.Sprintf(verb, thing), name+" by "+verb)
		}
		check(fmt.Sprint(thing)+fmt.Sprintln(thing), name)
		if text, err := json.Marshal(thing); err == nil {
			check(string(text), name+" as JSON")
		}
		if text, err := xml.Marshal(thing); err == nil {
			check(string(text), name+" as XML")
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("session", "thing", thing)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("session", "thing", thing)
		check(log.String(), name+" in a log")
	}
	assert.Equal(t, "(33 secret bytes)", good.Secret.String())
	for _, verb := range []string{"%v", "%s", "%x", "%d", "%#v"} {
		assert.Equal(t, "(33 secret bytes)", fmt.Sprintf(verb, good.Secret), verb)
	}
	text, err := json.Marshal(Policy{By: good})
	require.NoError(t, err)
	assert.Contains(t, string(text), `"Secret":"(33 secret bytes)"`)
	assert.ErrorContains(t, made, "(15 secret bytes)")
}

// Also where fmt may call no method, since the field is unexported, nothing is told.
func TestSecret_InUnexportedFields_S03(t *testing.T) {
	t.Parallel()
	const current = "correct horse battery staple 0815"
	s := NewSecret([]byte(current))
	type holder struct {
		secret Secret
		cookie Cookie
		policy *Policy
	}
	type deeper struct {
		holder holder
		to     *holder
		list   []holder
		kinds  map[string]Kind
		any    any
	}
	h := holder{s, Cookie{Secret: s}, &Policy{By: Cookie{Secret: s}}}
	d := deeper{h, &h, []holder{h}, map[string]Kind{"by": h.cookie}, h}
	secrets := telltales(current)
	for _, thing := range []any{s, &s, h, &h, d, &d, []holder{h}, map[string]holder{"h": h}, []any{s}, *h.policy, h.cookie} {
		for _, verb := range everyVerb {
			printed := fmt.Sprintf(verb, thing)
			for _, tale := range secrets {
				assert.NotContains(t, printed, tale, "%T by %s", thing, verb)
			}
		}
	}
}
