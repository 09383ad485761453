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

// What is promised of a consumer offset: a save is answered once it is applied, and a read that first had the leader confirm
// itself sees all of that, whoever led meanwhile. It never goes back: a save below what is known is answered and changes
// nothing. So it is a register that holds the largest value.
var maximum = porcupine.Model{
	Init: func() interface{} { return int64(-1) },
	Step: func(state, input, output interface{}) (bool, interface{}) {
		largest, operation := state.(int64), input.(*line)
		if operation.Op == "write" {
			return true, max(largest, operation.offset())
		}
		return operation.offset() == largest, largest
	},
	DescribeOperation: describe,
	DescribeState:     func(state interface{}) string { return fmt.Sprintf("%d", state) },
}

func describe(input, _ interface{}) string {
	operation := input.(*line)
	value := operation.Value
	if value == "" {
		value = "nothing"
	}
	text := fmt.Sprintf("%s %s", operation.Op, value)
	if operation.Outcome != "ok" {
		text += " (" + operation.Outcome + ")"
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
func registerOperations(lines []line) []porcupine.Operation {
	var operations []porcupine.Operation
	for nth := range lines {
		if line := &lines[nth]; line.Outcome != "refused" {
			operations = append(operations, operation(line))
		}
	}
	return operations
}

// As registerOperations, without saves of unknown outcome that nobody read: those explain nothing, and each doubles the search.
func maximumOperations(lines []line) []porcupine.Operation {
	read := map[string]bool{}
	for nth := range lines {
		if line := &lines[nth]; line.Op == "read" {
			read[line.Value] = true
		}
	}
	var operations []porcupine.Operation
	for nth := range lines {
		line := &lines[nth]
		if line.Outcome == "ok" || line.Outcome == "unknown" && read[line.Value] {
			operations = append(operations, operation(line))
		}
	}
	return operations
}

func operation(line *line) porcupine.Operation {
	return porcupine.Operation{ClientId: line.Client, Input: line, Call: line.Call, Return: line.end()}
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
			found = append(found, fmt.Sprintf("%s: nobody wrote that, or it was refused", at(line)))
		} else if call > line.Return {
			found = append(found, fmt.Sprintf("%s: it was written only at %s", at(line), seconds(call)))
		}
	}
	return found
}
