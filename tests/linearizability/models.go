package main

import (
	"fmt"
	"math"

	"github.com/anishathalye/porcupine"
)

// What is promised of a topic's or a subscription group's settings: a change is answered once it is committed, and a read
// that first had the leader confirm itself sees all of that. So each key is a plain register. A write whose outcome is
// unknown may take effect at any time after its call, or never.
var register = porcupine.Model{
	Init: func() interface{} { return "" },
	Step: func(state, input, output interface{}) (bool, interface{}) {
		operation := input.(*line)
		if operation.Op == "write" {
			return true, operation.Value
		}
		return state == operation.Value, state
	},
	DescribeOperation: describe,
	DescribeState:     func(state interface{}) string { return fmt.Sprintf("%q", state) },
}

// What is promised of a consumer offset: saves are answered from the leader's memory and travel through the log in batches.
//
//   - It never goes back: a save below what is known is answered and changes nothing. So it is a register that holds the
//     largest value.
//   - A read is answered by a leader that has just confirmed itself, from its memory: it sees every save answered before it.
//   - When the leader goes, what it answered within the window before that may be lost, and only that. Therefore operations
//     within a steady reign (history.isSteady) are exact. Of the others, acknowledged saves bind nobody, and reads must only
//     not be below what was exact before.
//   - Nobody reads what was not written before that read ended (history.phantoms).
//
// The state is the smallest value that a read may return. A save whose outcome is unknown or that may be lost does not raise
// it, so such saves are not in the operations at all; a read that returns one is proof of it.
var maximum = porcupine.Model{
	Init: func() interface{} { return int64(-1) },
	Step: func(state, input, output interface{}) (bool, interface{}) {
		least, operation := state.(int64), input.(*line)
		offset, steady := operation.offset(), output.(bool)
		if operation.Op == "write" {
			return true, max(least, offset)
		}
		if offset < least {
			return false, state
		}
		if steady {
			return true, offset
		}
		return true, least
	},
	DescribeOperation: describe,
	DescribeState:     func(state interface{}) string { return fmt.Sprintf("at least %d", state) },
}

func describe(input, output interface{}) string {
	operation := input.(*line)
	value := operation.Value
	if value == "" {
		value = "nothing"
	}
	text := fmt.Sprintf("%s %s", operation.Op, value)
	if operation.Outcome != "ok" {
		text += " (" + operation.Outcome + ")"
	}
	if steady, known := output.(bool); known && !steady {
		text += " (around a change of the leader)"
	}
	return text
}

func max(one, other int64) int64 {
	if one > other {
		return one
	}
	return other
}

// The operations on one key as porcupine takes them.
func (history *history) registerOperations(lines []line) []porcupine.Operation {
	var operations []porcupine.Operation
	for nth := range lines {
		line := &lines[nth]
		if line.Outcome != "refused" {
			operations = append(operations, operation(line, nil))
		}
	}
	return operations
}

func (history *history) maximumOperations(lines []line) []porcupine.Operation {
	var operations []porcupine.Operation
	for nth := range lines {
		line := &lines[nth]
		if line.Outcome != "ok" {
			continue
		}
		steady := history.isSteady(line)
		if steady {
			history.strict++
		} else {
			history.loose++
		}
		if steady || line.Op == "read" {
			operations = append(operations, operation(line, steady))
		}
	}
	return operations
}

func operation(line *line, output interface{}) porcupine.Operation {
	return porcupine.Operation{ClientId: line.Client, Input: line, Call: line.Call, Output: output, Return: line.end()}
}

// The reads that nobody's write explains.
func phantoms(lines []line) []string {
	called := map[string]int64{}
	for nth := range lines {
		line := &lines[nth]
		if line.Op == "write" && line.Outcome != "refused" {
			before, known := called[line.Value]
			if !known {
				before = math.MaxInt64
			}
			if line.Call < before {
				called[line.Value] = line.Call
			}
		}
	}
	var found []string
	for nth := range lines {
		line := &lines[nth]
		if line.Op != "read" || line.Value == "" {
			continue
		}
		if call, known := called[line.Value]; !known {
			found = append(found, fmt.Sprintf("%s: nobody wrote that, or it was refused", at(line, nil)))
		} else if call > line.Return {
			found = append(found, fmt.Sprintf("%s: it was written only at %s", at(line, nil), seconds(call)))
		}
	}
	return found
}
