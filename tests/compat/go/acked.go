package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

// acked sends one message after the other to one queue until standard input ends, with the client's default settings but
// one attempt each, and prints a line for each:
//
//	ACK seq started finished queue offset offsetMsgId
//	ERR seq started finished text
func acked(o options) {
	var stopped atomic.Bool
	go func() {
		io.Copy(io.Discard, os.Stdin)
		stopped.Store(true)
	}()
	p, err := rocketmq.NewProducer(
		producer.WithNsResolver(primitive.NewPassthroughResolver(strings.Split(o.namesrv, ";"))),
		producer.WithGroupName("HARNESS_GO_PRODUCER"),
		producer.WithRetry(0),
		producer.WithQueueSelector(toQueue(o.queue)),
	)
	if err != nil {
		fail("new producer", err)
	}
	if err := p.Start(); err != nil {
		fail("start the producer", err)
	}
	for seq := 0; !stopped.Load(); seq++ {
		key := fmt.Sprintf("p%d-%d", o.producer, seq)
		m := primitive.NewMessage(o.topic, numbered(key, o.producer, seq, 200))
		m.WithTag("go")
		m.WithKeys([]string{key})
		started := monotonic()
		result, err := p.SendSync(context.Background(), m)
		finished := monotonic()
		if err != nil {
			text := strings.NewReplacer("\n", " ", "\r", " ").Replace(err.Error())
			fmt.Printf("ERR %d %d %d %s\n", seq, started, finished, text)
			time.Sleep(10 * time.Millisecond)
			continue
		}
		fmt.Printf("ACK %d %d %d %d %d %s\n", seq, started, finished, result.MessageQueue.QueueId, result.QueueOffset,
			result.OffsetMsgID)
		time.Sleep(time.Millisecond)
	}
	if err := p.Shutdown(); err != nil {
		fail("shut the producer down", err)
	}
}

type toQueue int

func (queue toQueue) Select(_ *primitive.Message, queues []*primitive.MessageQueue, _ string) *primitive.MessageQueue {
	for _, candidate := range queues {
		if candidate.QueueId == int(queue) {
			return candidate
		}
	}
	return nil
}

// numbered is the body that the harness expects of a key; the same arithmetic as in its history module.
func numbered(key string, producer, seq, size int) []byte {
	body := append([]byte(key), ' ')
	state := uint32(producer)*0x9E3779B9 ^ uint32(seq+1)
	for len(body) < size {
		state = state*1664525 + 1013904223
		body = append(body, 'a'+byte((state>>24)%26))
	}
	return body
}

// monotonic reads the clock that the harness reads; Go shows its own only as differences.
func monotonic() int64 {
	const clockMonotonic = 1
	var now syscall.Timespec
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&now)), 0)
	return now.Nano()
}
