package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Operations as "client call-return write|read value [outcome]", times in milliseconds; an answered read of nothing has no value.
func operations(t *testing.T, kind, key, text string) string {
	t.Helper()
	var lines []string
	for _, row := range strings.Split(strings.TrimSpace(text), "\n") {
		words := append(strings.Fields(row), "", "")
		outcome := "ok"
		if words[4] != "" {
			outcome = words[4]
		}
		var call, end int
		if _, err := fmt.Sscanf(words[1], "%d-%d", &call, &end); err != nil {
			t.Fatalf("%q: %v", row, err)
		}
		lines = append(lines, fmt.Sprintf(
			`{"kind":%q,"key":%q,"client":%s,"call":%d,"return":%d,"op":%q,"value":%q,"outcome":%q}`,
			kind, key, words[0], call*1_000_000, end*1_000_000, words[2], words[3], outcome))
	}
	return strings.Join(lines, "\n") + "\n"
}

func judge(t *testing.T, text string) string {
	t.Helper()
	history, err := read(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, finding := range history.check(10 * time.Second) {
		found = append(found, finding.text)
	}
	return strings.Join(found, "\n")
}

func expect(t *testing.T, kind, text, wanted string) {
	t.Helper()
	found := judge(t, operations(t, kind, "the key", text))
	if wanted == "" && found != "" {
		t.Errorf("found in a good history:\n%s", found)
	}
	if wanted != "" && (!strings.Contains(found, wanted) || !strings.Contains(found, "the key")) {
		t.Errorf("expected %q, found:\n%s", wanted, found)
	}
}

func TestRegisters(t *testing.T) {
	for name, test := range map[string]struct{ text, wanted string }{
		"good": {`
			1 10-20 read
			1 30-40 write a
			2 35-45 read a
			1 50-90 write b
			2 55-60 read b
			3 61-70 read b
			1 100-110 write a
			2 120-130 read a`, ""},
		"concurrent writes in either order": {`
			1 10-40 write a
			2 10-40 write b
			3 50-60 read a
			4 50-60 read a`, ""},
		"an unknown write takes effect late": {`
			1 10-20 write a
			2 30-40 write b unknown
			3 50-60 read a
			3 500-510 read b
			3 520-530 read b`, ""},
		"an unknown write never takes effect": {`
			1 10-20 write a
			2 30-40 write b unknown
			3 500-510 read a`, ""},
		"stale read": {`
			1 10-20 write a
			1 30-40 write b
			2 50-60 read a`, "NOT linearizable"},
		"lost write": {`
			1 10-20 write a
			2 30-40 read`, "NOT linearizable"},
		"back to what was before": {`
			1 10-20 write a
			1 30-40 write b unknown
			2 50-60 read b
			2 70-80 read a`, "NOT linearizable"},
		"refused and yet there": {`
			1 10-20 write a
			1 30-40 write b refused
			2 50-60 read b`, "NOT linearizable"},
		"a change acknowledged by a leader of the past": {`
			1 10-20 write a
			2 30-40 write b
			1 50-60 write a
			2 70-80 read b`, "NOT linearizable"},
		"two readers see two orders": {`
			1 10-100 write a
			2 10-100 write b
			3 110-120 read a
			4 130-140 read b`, "NOT linearizable"},
	} {
		t.Run(name, func(t *testing.T) { expect(t, "register", test.text, test.wanted) })
	}
}

func TestOffsets(t *testing.T) {
	for name, test := range map[string]struct{ text, wanted string }{
		"good": {`
			1 10-20 read
			1 30-40 write 5
			2 50-60 read 5
			1 70-80 write 3
			2 90-95 read 5
			1 100-110 write 9
			2 100-110 read 5
			2 120-130 read 9`, ""},
		"concurrent saves, the larger one first": {`
			1 10-40 write 9
			2 10-40 write 5
			3 20-30 read 9
			3 50-60 read 9`, ""},
		"an unknown save that nobody sees": {`
			1 100-110 write 5
			1 120-130 write 9 unknown
			2 300-310 read 5`, ""},
		"an unknown save is seen later": {`
			1 100-110 write 5
			1 120-130 write 9 unknown
			2 200-210 read 5
			2 300-310 read 9`, ""},
		"stale read": {`
			1 100-110 write 5
			1 120-130 write 6
			2 140-150 read 5`, "NOT linearizable"},
		"it goes back": {`
			1 100-110 write 5
			1 120-130 write 9 unknown
			2 140-150 read 9
			2 160-170 read 5`, "NOT linearizable"},
		"a smaller save moved it back": {`
			1 100-110 write 5
			1 120-130 write 3
			2 140-150 read 3`, "NOT linearizable"},
		"lost with the leader": {`
			1 100-110 write 5
			1 950-960 write 9
			2 1560-1570 read 5`, "NOT linearizable"},
		"read from the old leader, and lost with it": {`
			1 100-110 write 5
			1 500-510 write 9 unknown
			2 600-610 read 9
			2 1300-1310 read 5`, "NOT linearizable"},
		"lost altogether": {`
			1 100-110 write 5
			2 3020-3030 read`, "NOT linearizable"},
		"never written":    {"1 10-20 write 5\n2 30-40 read 6", "nobody wrote that"},
		"read too early":   {"1 10-20 write 5\n2 30-40 read 6\n1 50-60 write 6", "written only at"},
		"refused and read": {"1 10-20 write 5\n1 21-22 write 6 refused\n2 30-40 read 6", "nobody wrote that"},
	} {
		t.Run(name, func(t *testing.T) { expect(t, "max", test.text, test.wanted) })
	}
}

func TestTheKeyThatFailsIsNamedAmongOthers(t *testing.T) {
	good := operations(t, "register", "good", "1 10-20 write a\n2 30-40 read a")
	bad := operations(t, "register", "bad", "1 10-20 write a\n2 30-40 write b\n3 50-60 read a")
	found := judge(t, good+bad)
	if !strings.HasPrefix(found, "bad: NOT linearizable") || strings.Contains(found, "good") {
		t.Errorf("found:\n%s", found)
	}
	// What could be ordered, and what could not.
	if !strings.Contains(found, `then the state is "b"`) || !strings.Contains(found, "read a") {
		t.Errorf("not explained:\n%s", found)
	}
}

func TestASearchThatTakesTooLongIsAFailure(t *testing.T) {
	var text strings.Builder
	for nth := 0; nth < 40; nth++ {
		fmt.Fprintf(&text, "%d 10-1000 write v%d unknown\n", nth, nth)
	}
	for nth := 0; nth < 20; nth++ {
		fmt.Fprintf(&text, "50 %d-%d read v%d\n", 2000+nth*10, 2001+nth*10, nth)
	}
	text.WriteString("51 3000-3001 write last\n50 3002-3003 read nobody\n")
	history, err := read(strings.NewReader(operations(t, "register", "hard", text.String())))
	if err != nil {
		t.Fatal(err)
	}
	findings := history.check(200 * time.Millisecond)
	if len(findings) != 1 || !strings.Contains(findings[0].text, "NOT KNOWN") {
		t.Errorf("found: %v", findings)
	}
}

func TestAPictureIsDrawn(t *testing.T) {
	history, err := read(strings.NewReader(operations(t, "register", "bad", "1 10-20 write a\n2 30-40 read")))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "picture.html")
	if err := history.check(time.Second)[0].draw(path); err != nil {
		t.Fatal(err)
	}
	if drawn, err := os.ReadFile(path); err != nil || !strings.Contains(string(drawn), "write a") {
		t.Errorf("%v, %d bytes", err, len(drawn))
	}
}

func TestWhatCannotBeJudgedIsAnError(t *testing.T) {
	good := operations(t, "max", "k", "1 10-20 write 5\n2 30-40 read 5")
	for name, text := range map[string]string{
		"nothing":        "",
		"no read":        operations(t, "max", "k", "1 10-20 write 5"),
		"no write":       operations(t, "max", "k", "1 10-20 read"),
		"no JSON":        good + "{",
		"another kind":   good + `{"kind":"noise"}`,
		"no key":         good + operations(t, "max", "", "1 10-20 write 5"),
		"no offset":      good + operations(t, "max", "k", "1 10-20 write x"),
		"another op":     good + operations(t, "max", "k", "1 10-20 swap 5"),
		"unknown read":   good + operations(t, "max", "k", "1 10-20 read 5 unknown"),
		"ends too early": good + operations(t, "max", "k", "1 20-10 write 5"),
	} {
		if _, err := read(strings.NewReader(text)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
