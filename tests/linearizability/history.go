package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
)

// A line of the history. Times are nanoseconds of one monotonic clock.
//
// Kinds "register" and "max" are operations on Key, see models.go.
type line struct {
	Kind   string `json:"kind"`
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

type history struct {
	operations map[string][]line
	lines      int
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

// When an operation has surely happened.
func (line *line) end() int64 {
	if line.Outcome == "unknown" {
		return math.MaxInt64
	}
	return line.Return
}

func (history *history) summary() string {
	return fmt.Sprintf("%d keys, %d operations", len(history.operations), history.lines)
}
