package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"sort"
	"strconv"
)

// A line of the history. Times are nanoseconds of one monotonic clock.
//
// Kind "promises" says what a saved offset may lose (Window) and how long a deposed leader may be believed (Grace).
// Kind "reign" says that Leader led, and had a quorum, from From to To.
// Kinds "register" and "max" are operations on Key, see models.go.
type line struct {
	Kind string `json:"kind"`

	Window int64 `json:"window"`
	Grace  int64 `json:"grace"`

	Leader string `json:"leader"`
	From   int64  `json:"from"`
	To     int64  `json:"to"`

	Key    string `json:"key"`
	Client int    `json:"client"`
	Call   int64  `json:"call"`
	Return int64  `json:"return"`
	// "read" or "write".
	Op string `json:"op"`
	// What was written, or read; empty: there is nothing.
	Value string `json:"value"`
	// "ok"; "refused": surely not done; "unknown": done at any time after Call, or never. Reads are in the history only
	// when they were answered.
	Outcome string `json:"outcome"`
}

// A span of time, both ends included.
type span struct{ from, to int64 }

type history struct {
	window, grace int64
	reigns        []span
	operations    map[string][]line
	lines         int
	// How many operations on offsets were judged in full, and how many only against what was durable.
	strict, loose int
}

func readFile(path string) (*history, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return read(file)
}

// Reads a history; an error when a line makes no sense, or when nothing was written or nothing was read.
func read(from io.Reader) (*history, error) {
	history := &history{operations: map[string][]line{}}
	scanner := bufio.NewScanner(from)
	scanner.Buffer(nil, 1<<20)
	var reads, writes int
	for number := 1; scanner.Scan(); number++ {
		var line line
		if err := json.Unmarshal(scanner.Bytes(), &line); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		switch line.Kind {
		case "promises":
			history.window, history.grace = line.Window, line.Grace
		case "reign":
			history.reigns = append(history.reigns, span{line.From, line.To})
		case "register", "max":
			if err := line.validate(); err != nil {
				return nil, fmt.Errorf("line %d: %w", number, err)
			}
			history.lines++
			if line.Op == "read" {
				reads++
			} else if line.Outcome == "ok" {
				writes++
			}
			history.operations[line.Key] = append(history.operations[line.Key], line)
		default:
			return nil, fmt.Errorf("line %d: kind %q", number, line.Kind)
		}
	}
	if err := scanner.Err(); err != nil {
		return nil, err
	}
	if reads == 0 || writes == 0 {
		return nil, fmt.Errorf("%d reads and %d acknowledged writes: nothing to judge", reads, writes)
	}
	sort.Slice(history.reigns, func(i, j int) bool { return history.reigns[i].from < history.reigns[j].from })
	return history, nil
}

func (line *line) validate() error {
	switch {
	case line.Key == "":
		return fmt.Errorf("no key")
	case line.Op != "read" && line.Op != "write":
		return fmt.Errorf("op %q", line.Op)
	case line.Outcome != "ok" && (line.Op == "read" || line.Outcome != "refused" && line.Outcome != "unknown"):
		return fmt.Errorf("outcome %q of a %s", line.Outcome, line.Op)
	case line.Return < line.Call:
		return fmt.Errorf("returned at %d, called at %d", line.Return, line.Call)
	}
	if line.Kind == "max" && (line.Value != "" || line.Op == "write") {
		if value, err := strconv.ParseInt(line.Value, 10, 64); err != nil || value < 0 {
			return fmt.Errorf("offset %q", line.Value)
		}
	}
	return nil
}

// The offset of a "max" line; -1 when there is none.
func (line *line) offset() int64 {
	value, err := strconv.ParseInt(line.Value, 10, 64)
	if err != nil {
		return -1
	}
	return value
}

// Whether an operation lay wholly within one reign: begun once the leader before was deposed for long enough to know it,
// and ended long enough before the last sign of this one for what it saved to be in the log.
func (history *history) isSteady(line *line) bool {
	for nth, reign := range history.reigns {
		from := reign.from
		if nth > 0 {
			from += history.grace
		}
		if line.Call >= from && line.Return <= reign.to-history.window {
			return true
		}
	}
	return false
}

// When an operation has surely happened.
func (line *line) end() int64 {
	if line.Outcome == "unknown" {
		return math.MaxInt64
	}
	return line.Return
}

func (history *history) summary() string {
	return fmt.Sprintf("%d keys, %d operations; on offsets %d in full, %d around changes of the leader; %d reigns",
		len(history.operations), history.lines, history.strict, history.loose, len(history.reigns))
}
