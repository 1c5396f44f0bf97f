package journal

import (
	"regexp"
	"strings"
	"testing"
)

// A journal may have a million rows, and a broker that comes back may redeliver
// a thousand jobs at once: nothing that is asked often reads a whole table.
func TestQueriesUseIndexes(t *testing.T) {
	j := openTest(t, t.TempDir())
	defer j.Close()
	queries := []string{
		"SELECT * FROM job " + whereOpen,
		"SELECT * FROM job " + whereID,
		"SELECT * FROM job " + whereLegacy,
		"SELECT * FROM job " + whereNewest,
		"SELECT * FROM address " + whereOwed,
		"SELECT * FROM address " + whereOwedByID,
		"SELECT * FROM act " + whereActs,
		selectDroppable,
		selectForgettable,
	}
	for _, q := range j.stmt.texts() {
		queries = append(queries, q)
	}
	// An index of the jobs that have not ended, or of what is owed, is read
	// from end to end.
	short := regexp.MustCompile(`address_owed|address_sent`)
	for _, q := range queries {
		rows, err := j.write.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+q, make([]any, parameters(q))...)
		if err != nil {
			if strings.HasPrefix(q, "BEGIN") || strings.HasPrefix(q, "COMMIT") || strings.HasPrefix(q, "ROLLBACK") {
				continue
			}
			t.Fatalf("%s: %v", q, err)
		}
		for rows.Next() {
			var id, parent, unused int
			var detail string
			if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
				t.Fatal(err)
			}
			if regexp.MustCompile(`^SCAN (job|address|alias|tombstone|verdict)\b`).MatchString(detail) && !short.MatchString(detail) {
				t.Errorf("%s\nreads a whole table: %s", q, detail)
			}
			if strings.Contains(detail, "TEMP B-TREE") {
				t.Errorf("%s\nsorts: %s", q, detail)
			}
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		rows.Close()
	}
}

// parameters counts the parameters of a statement.
func parameters(q string) int {
	numbered := regexp.MustCompile(`\?[0-9]`).FindAllString(q, -1)
	if len(numbered) == 0 {
		return strings.Count(q, "?")
	}
	n := 0
	for _, p := range numbered {
		n = max(n, int(p[1]-'0'))
	}
	return n
}

// Who still asks while the agent ends is told so.
func TestReaderAfterClose(t *testing.T) {
	j := openTest(t, t.TempDir())
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Reader().BySeq(t.Context(), 1); err == nil {
		t.Error("a closed journal was read")
	}
}
