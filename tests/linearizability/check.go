package main

import (
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// Why a key does not fit its model.
type finding struct {
	key, text string
	// Writes a picture of the key's history to a file.
	draw func(path string) error
}

// Lines of an explanation.
const shown = 8

// Judges every key.
func (history *history) check(limit time.Duration) []finding {
	keys := make([]string, 0, len(history.operations))
	for key := range history.operations {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	var findings []finding
	for _, key := range keys {
		if found := history.checkKey(key, limit); found != nil {
			findings = append(findings, *found)
		}
	}
	return findings
}

func (history *history) checkKey(key string, limit time.Duration) *finding {
	lines := history.operations[key]
	model, operations := register, []porcupine.Operation(nil)
	if lines[0].Kind == "max" {
		model = maximum
		operations = maximumOperations(lines)
		if found := phantoms(lines); len(found) > 0 {
			return &finding{key: key, text: fmt.Sprintf("%s: %s", key, strings.Join(head(found), "\n    "))}
		}
	} else {
		operations = registerOperations(lines)
	}
	result, info := porcupine.CheckOperationsVerbose(model, operations, limit)
	draw := func(path string) error { return porcupine.VisualizePath(model, info, path) }
	switch result {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		text := fmt.Sprintf("%s: NOT KNOWN to be linearizable: no answer for %d operations within %s", key, len(operations), limit)
		return &finding{key, text, draw}
	default:
		return &finding{key, fmt.Sprintf("%s: NOT linearizable\n%s", key, explain(model, operations, info)), draw}
	}
}

// Tells the longest order that fits a part of the history, and what cannot come next.
func explain(model porcupine.Model, operations []porcupine.Operation, info porcupine.LinearizationInfo) string {
	var longest []porcupine.Operation
	for _, partition := range info.PartialLinearizationsOperations() {
		for _, order := range partition {
			if len(order) > len(longest) {
				longest = order
			}
		}
	}
	placed := map[interface{}]bool{}
	state := model.Init()
	for _, operation := range longest {
		placed[operation.Input] = true
		_, state = model.Step(state, operation.Input, operation.Output)
	}
	var left []porcupine.Operation
	for _, operation := range operations {
		if !placed[operation.Input] {
			left = append(left, operation)
		}
	}
	sort.Slice(left, func(i, j int) bool { return left[i].Return < left[j].Return })
	var text strings.Builder
	fmt.Fprintf(&text, "    %d of %d operations can be put in order; the last of them:\n", len(longest), len(operations))
	for nth, operation := range longest {
		if nth+shown >= len(longest) {
			fmt.Fprintf(&text, "        %s\n", at(operation.Input.(*line)))
		}
	}
	fmt.Fprintf(&text, "    then the state is %s, and these cannot all follow:", model.DescribeState(state))
	for nth, operation := range left {
		if nth < shown {
			fmt.Fprintf(&text, "\n        %s", at(operation.Input.(*line)))
		}
	}
	return text.String()
}

func at(line *line) string {
	ended := "…"
	if line.Outcome != "unknown" {
		ended = seconds(line.Return)
	}
	return fmt.Sprintf("client %d, %s to %s: %s", line.Client, seconds(line.Call), ended, describe(line, nil))
}

func seconds(nanoseconds int64) string {
	return fmt.Sprintf("%.4f s", float64(nanoseconds)/1e9)
}

func head(lines []string) []string {
	if len(lines) > shown {
		return append(lines[:shown:shown], "…")
	}
	return lines
}
