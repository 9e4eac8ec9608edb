package discovery

import "fmt"

// Family says which addresses of a name are used, IPv4 (A records), IPv6 (AAAA
// records) or both.
//
// An endpoint is a literal address, so a dialer has nothing to race: it cannot
// fall back from IPv6 to IPv4 within a dial as it does for names ("Happy
// Eyeballs", RFC 8305). Where one family cannot be reached, each of its
// endpoints costs failed attempts. That is why the default uses one family
// only, the one that works nearly everywhere, and why IPv4AndIPv6 is for
// networks that are known to carry both.
type Family uint8

// The families.
const (
	// PreferIPv4 uses IPv6 addresses only while there are no IPv4 ones. It is
	// the default.
	PreferIPv4 Family = iota
	// PreferIPv6 uses IPv4 addresses only while there are no IPv6 ones.
	PreferIPv6
	// IPv4AndIPv6 uses the addresses of both, as endpoints of equal rank. A
	// server that has both is two endpoints, with twice the traffic.
	IPv4AndIPv6
	// IPv4Only never asks for IPv6 addresses.
	IPv4Only
	// IPv6Only never asks for IPv4 addresses.
	IPv6Only
)

var familyNames = [...]string{"prefer-ipv4", "prefer-ipv6", "ipv4-and-ipv6", "ipv4-only", "ipv6-only"}

// String returns the name that [Family.UnmarshalText] takes.
func (f Family) String() string {
	if int(f) < len(familyNames) {
		return familyNames[f]
	}
	return fmt.Sprintf("Family(%d)", uint8(f))
}

// MarshalText implements [encoding.TextMarshaler].
func (f Family) MarshalText() ([]byte, error) {
	if int(f) >= len(familyNames) {
		return nil, fmt.Errorf("discovery: no such address family: %d", uint8(f))
	}
	return []byte(f.String()), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler]. The names are
// "prefer-ipv4", "prefer-ipv6", "ipv4-and-ipv6", "ipv4-only" and "ipv6-only".
func (f *Family) UnmarshalText(text []byte) error {
	for i, name := range familyNames {
		if name == string(text) {
			*f = Family(i)
			return nil
		}
	}
	return fmt.Errorf("discovery: no such address family: %q", text)
}

// networks returns the families to ask for, the preferred one first, as package
// net names them, and whether the addresses of all of them count rather than
// those of the first that has any.
func (f Family) networks() (names []string, all bool) {
	switch f {
	case PreferIPv6:
		return []string{"ip6", "ip4"}, false
	case IPv4AndIPv6:
		return []string{"ip4", "ip6"}, true
	case IPv4Only:
		return []string{"ip4"}, false
	case IPv6Only:
		return []string{"ip6"}, false
	default: // PreferIPv4
		return []string{"ip4", "ip6"}, false
	}
}
