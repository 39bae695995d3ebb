package mask

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// New returns the rewriter that applies a method to values of type t. It
// refuses unknown methods, and those whose settings are missing.
func New(method string, t Type, s Settings) (Rewriter, error) {
	if err := check(method, s); err != nil {
		return nil, err
	}
	return build(method, t, s), nil
}

// Blind is what New takes for values of which not even whether they are NULL,
// or how many elements they have, may be told: one fixed value of the type for
// all. It is also to be asked for NULL, as an empty value.
const Blind = "blind"

func check(method string, s Settings) error {
	switch method {
	case Blind:
		return nil
	case "redact", "", "null", "last4", "zip3", "domain":
		return nil
	case "token":
		if len(s.Keys.Secret) < minSecret {
			return fmt.Errorf("mask method token needs a key of at least %d bytes", minSecret)
		}
		return nil
	case "year", "age":
		if s.Today.IsZero() {
			return fmt.Errorf("mask method %s needs the session's date", method)
		}
		return nil
	case "hash":
		return fmt.Errorf("mask method hash is refused: an unkeyed hash of a short value is undone by trying all values; use token, a keyed hash that still joins")
	default:
		return fmt.Errorf("unknown mask method %q: use one of %s", method, strings.Join(Methods(), ", "))
	}
}

// build returns the rewriter of a checked method, the type's placeholder where
// the type cannot carry it.
func build(method string, t Type, s Settings) Rewriter {
	if method == "null" {
		return nothing{}
	}
	k := kindOf(t)
	if method == Blind {
		return blind(t, k)
	}
	if k.array != 0 {
		elem := Type{OID: k.array, Typmod: t.Typmod, Binary: t.Binary}
		return &arrayRewriter{elem: build(method, elem, s), oid: k.array, binary: t.Binary, delimiter: k.delimiter}
	}
	if r := special(method, t, k, s); r != nil {
		return r
	}
	return placeholder(t, k)
}

// special returns the rewriter of a method on a kind of type that can carry
// it, nil if it cannot.
func special(method string, t Type, k kind, s Settings) Rewriter {
	redact := placeholder(t, k)
	switch {
	case method == "last4" && k.family == familyText:
		return &last4{fit: fitOf(t), otherwise: redact}
	case method == "domain" && k.family == familyText:
		return &domain{fit: fitOf(t), otherwise: redact}
	case method == "token":
		return newToken(t, k, s, redact)
	case method == "zip3" && k.family == familyText:
		return &zip3Text{small: smallAreas(), fit: fitOf(t), otherwise: redact}
	case method == "zip3" && k.family == familyInt:
		return &zip3Int{small: smallAreas(), integer: integerOf(t, k), otherwise: redact}
	case method == "age" && k.family == familyText:
		return &ageText{fit: fitOf(t), otherwise: redact}
	case method == "age" && k.family == familyInt:
		return &ageInt{integer: integerOf(t, k), otherwise: redact}
	case (method == "year" || method == "age") && k.family == familyDate:
		return newYear(t, k, s, redact)
	case method == "year" && k.family == familyText:
		return &yearText{fit: fitOf(t), oldest: cutoff(s.Today), otherwise: redact}
	case method == "year" && k.family == familyInt && k.width >= 2:
		return &yearInt{integer: integerOf(t, k), today: s.Today.Year(), otherwise: redact}
	}
	return nil
}

// blind shows one value of the type, for arrays the empty one.
func blind(t Type, k kind) Rewriter {
	switch {
	case k.array == 0:
		return placeholder(t, k)
	case t.Binary: // no dimensions, no NULLs, the elements' type
		return constant(binary.BigEndian.AppendUint32(make([]byte, 8), k.array))
	}
	return constant("{}")
}

// nothing shows NULL.
type nothing struct{}

func (nothing) Rewrite(dst, _ []byte) ([]byte, bool) { return dst, true }

// constant shows the same for every value.
type constant []byte

func (c constant) Rewrite(dst, _ []byte) ([]byte, bool) { return append(dst, c...), false }
