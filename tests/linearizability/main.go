// Checks a history of registers, written by tests/src/registers.rs, with porcupine: exit status 0 when every key fits its
// model, 1 with an explanation when one does not or when the search takes too long, 2 when the history cannot be judged.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"
)

func main() {
	limit := flag.Duration("limit", 30*time.Second, "longest search for one key; a search that takes longer is a failure")
	picture := flag.String("picture", "", "file for a picture (HTML) of the first key that does not fit")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: linearizability [-limit 30s] [-picture FILE] HISTORY")
		os.Exit(2)
	}
	history, err := readFile(flag.Arg(0))
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", flag.Arg(0), err)
		os.Exit(2)
	}
	findings := history.check(*limit)
	for nth, finding := range findings {
		fmt.Printf("%s\n", finding.text)
		if nth == 0 && *picture != "" && finding.draw != nil {
			if err := finding.draw(*picture); err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n", *picture, err)
			}
		}
	}
	fmt.Println(history.summary())
	if len(findings) > 0 {
		os.Exit(1)
	}
}
