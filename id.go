package cbsdmq

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

var (
	poolName  = regexp.MustCompile(`^[a-z0-9_-]{1,32}$`)
	ulidText  = regexp.MustCompile(`^[0-7][0-9A-HJKMNP-TV-Z]{25}$`)
	legacyNum = regexp.MustCompile(`^[0-9]{1,20}(\.[0-9]{1,9})?$`)
)

// ValidPool reports whether name can be the name of a pool.
func ValidPool(name string) bool { return poolName.MatchString(name) }

// ValidULID reports whether s is a ULID in its canonical form
// (github.com/ulid/spec).
func ValidULID(s string) bool { return ulidText.MatchString(s) }

// ULIDTime returns the time in a ULID: its first 10 characters are milliseconds
// since 1970 in Crockford's base 32. It is the zero time where id is not a ULID.
func ULIDTime(id string) time.Time {
	if !ValidULID(id) {
		return time.Time{}
	}
	const digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	var ms int64
	for i := range 10 {
		ms = ms<<5 | int64(strings.IndexByte(digits, id[i]))
	}
	return time.UnixMilli(ms)
}

// PrintedID is the id of a job for people: pool/ULID, or pool/17 for a job of
// an original client.
func PrintedID(pool, id string) string { return pool + "/" + id }

// ValidID reports whether id can be a job's id within its pool: a ULID, or the
// number of a job of an original client (17, or 17.2 where numbers came again).
func ValidID(id string) bool { return ValidULID(id) || legacyNum.MatchString(id) }

// SplitID takes a printed id apart.
func SplitID(printed string) (pool, id string, err error) {
	pool, id, ok := strings.Cut(printed, "/")
	if !ok || !ValidPool(pool) || !ValidID(id) {
		return "", "", Errorf(CodeRefused, "ID", "%s is not the id of a job", strconv.Quote(printed)).
			WithHint("ids look like pool1/01K9ZQ6V4S8H2M0W3C5D7E9F1G; `cbsdmq jobs` lists them")
	}
	return pool, id, nil
}
