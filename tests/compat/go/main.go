// Driver of the published Go client: sends or receives as told and prints one record per message, as the Java drivers do.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/admin"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
	"github.com/apache/rocketmq-client-go/v2/rlog"
)

const (
	orders      = 5
	batchSize   = 10
	asyncWindow = 32
)

type options struct {
	namesrv, topic, group, prefix, broker, tags string
	count, queue, producer                      int
	orderly                                     bool
}

func main() {
	if len(os.Args) < 2 {
		fail("an action is missing: sync, async, batch, ordered, acked, push or admin", nil)
	}
	rlog.SetLogLevel("warn")
	var o options
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	flags.StringVar(&o.namesrv, "namesrv", "127.0.0.1:9876", "nameserver address")
	flags.StringVar(&o.topic, "topic", "", "topic")
	flags.StringVar(&o.group, "group", "", "group")
	flags.StringVar(&o.prefix, "prefix", "", "how bodies start; the topic's name without")
	flags.StringVar(&o.broker, "broker", "", "broker address, for admin")
	flags.StringVar(&o.tags, "tags", "*", "tag expression")
	flags.IntVar(&o.count, "count", 100, "messages to send")
	flags.IntVar(&o.queue, "queue", 0, "the queue that acked sends to")
	flags.IntVar(&o.producer, "producer", 0, "the number in the keys that acked sends")
	flags.BoolVar(&o.orderly, "orderly", false, "consume queue by queue in order")
	if err := flags.Parse(os.Args[2:]); err != nil {
		fail("options", err)
	}
	if o.prefix == "" {
		o.prefix = o.topic
	}
	switch os.Args[1] {
	case "sync", "async", "batch", "ordered":
		produce(os.Args[1], o)
	case "acked":
		acked(o)
		return
	case "push":
		push(o)
	case "admin":
		administer(o)
	default:
		fail("unknown action "+os.Args[1], nil)
	}
	say("done")
}

var output sync.Mutex

// say prints one record: @kind<TAB>name=value…
func say(kind string, fields ...any) {
	var line strings.Builder
	line.WriteString("@" + kind)
	for i := 0; i+1 < len(fields); i += 2 {
		fmt.Fprintf(&line, "\t%v=%v", fields[i], fields[i+1])
	}
	output.Lock()
	defer output.Unlock()
	fmt.Println(line.String())
}

func fail(what string, err error) {
	fmt.Fprintln(os.Stderr, what, err)
	os.Exit(1)
}

func produce(mode string, o options) {
	group := o.group
	if group == "" {
		group = o.topic + "_producer"
	}
	settings := []producer.Option{
		producer.WithNsResolver(primitive.NewPassthroughResolver([]string{o.namesrv})),
		producer.WithGroupName(group),
		producer.WithRetry(3),
		producer.WithSendMsgTimeout(5 * time.Second),
	}
	if mode == "ordered" {
		settings = append(settings, producer.WithQueueSelector(producer.NewHashQueueSelector()))
	}
	p, err := rocketmq.NewProducer(settings...)
	if err != nil {
		fail("new producer", err)
	}
	if err := p.Start(); err != nil {
		fail("start the producer", err)
	}
	switch mode {
	case "sync":
		for i := 0; i < o.count; i++ {
			sendSync(p, message(o, body(o, i), i))
		}
	case "ordered":
		for i := 0; i < o.count; i++ {
			m := message(o, fmt.Sprintf("%s-%d-%d", o.prefix, i%orders, i/orders), i)
			m.WithShardingKey(strconv.Itoa(i % orders))
			sendSync(p, m)
		}
	case "async":
		sendAsync(p, o)
	case "batch":
		sendBatches(p, o)
	}
	if err := p.Shutdown(); err != nil {
		fail("shut the producer down", err)
	}
}

func body(o options, number int) string {
	return fmt.Sprintf("%s-%d", o.prefix, number)
}

func message(o options, body string, number int) *primitive.Message {
	m := primitive.NewMessage(o.topic, []byte(body))
	m.WithTag(fmt.Sprintf("Tag%d", number%3))
	m.WithKeys([]string{body})
	m.WithProperty("number", strconv.Itoa(number))
	m.WithProperty("text", fmt.Sprintf("größe 漢字 %d", number))
	return m
}

func sendSync(p rocketmq.Producer, m *primitive.Message) {
	result, err := p.SendSync(context.Background(), m)
	report(string(m.Body), result, err)
}

func sendAsync(p rocketmq.Producer, o options) {
	var pending sync.WaitGroup
	window := make(chan struct{}, asyncWindow)
	for i := 0; i < o.count; i++ {
		m := message(o, body(o, i), i)
		pending.Add(1)
		window <- struct{}{}
		err := p.SendAsync(context.Background(), func(_ context.Context, result *primitive.SendResult, err error) {
			report(string(m.Body), result, err)
			<-window
			pending.Done()
		}, m)
		if err != nil {
			report(string(m.Body), nil, err)
			<-window
			pending.Done()
		}
	}
	pending.Wait()
}

func sendBatches(p rocketmq.Producer, o options) {
	for from := 0; from < o.count; from += batchSize {
		var messages []*primitive.Message
		for i := from; i < from+batchSize && i < o.count; i++ {
			messages = append(messages, message(o, body(o, i), i))
		}
		result, err := p.SendSync(context.Background(), messages...)
		if err != nil {
			report(body(o, from), nil, err)
			continue
		}
		// One result for the batch: the offset of its first message, and the ids of all, separated by commas.
		offsetIDs := strings.Split(result.OffsetMsgID, ",")
		for i, m := range messages {
			say("sent", "body", string(m.Body), "status", status(result), "broker", result.MessageQueue.BrokerName,
				"queue", result.MessageQueue.QueueId, "offset", result.QueueOffset+int64(i), "offsetId", at(offsetIDs, i))
		}
	}
}

func at(list []string, index int) string {
	if index < len(list) {
		return list[index]
	}
	return ""
}

func status(result *primitive.SendResult) string {
	if result.Status == primitive.SendOK {
		return "SEND_OK"
	}
	return strconv.Itoa(int(result.Status))
}

func report(body string, result *primitive.SendResult, err error) {
	if err != nil {
		say("failed", "body", body, "cause", strings.ReplaceAll(err.Error(), "\n", " "))
		return
	}
	say("sent", "body", body, "status", status(result), "broker", result.MessageQueue.BrokerName,
		"queue", result.MessageQueue.QueueId, "offset", result.QueueOffset, "id", result.MsgID, "offsetId", result.OffsetMsgID)
}

// push consumes until standard input ends, then shuts down cleanly.
func push(o options) {
	c, err := rocketmq.NewPushConsumer(
		consumer.WithNsResolver(primitive.NewPassthroughResolver([]string{o.namesrv})),
		consumer.WithGroupName(o.group),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset),
		consumer.WithConsumerOrder(o.orderly),
	)
	if err != nil {
		fail("new consumer", err)
	}
	selector := consumer.MessageSelector{Type: consumer.TAG, Expression: o.tags}
	err = c.Subscribe(o.topic, selector, func(_ context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		for _, m := range messages {
			say("got", "body", string(m.Body), "queue", m.Queue.QueueId, "offset", m.QueueOffset, "id", m.MsgId,
				"offsetId", m.OffsetMsgId, "tags", m.GetTags(), "keys", m.GetKeys(), "number", m.GetProperty("number"),
				"text", m.GetProperty("text"), "times", m.ReconsumeTimes, "broker", m.Queue.BrokerName)
		}
		return consumer.ConsumeSuccess, nil
	})
	if err != nil {
		fail("subscribe", err)
	}
	if err := c.Start(); err != nil {
		fail("start the consumer", err)
	}
	say("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	// What was printed leaves the client's queue once its listener has returned; only then the offset saved below covers it.
	time.Sleep(200 * time.Millisecond)
	if err := c.Shutdown(); err != nil {
		fail("shut the consumer down", err)
	}
}

// administer creates a topic, finds it in the list, and deletes it.
func administer(o options) {
	a, err := admin.NewAdmin(admin.WithResolver(primitive.NewPassthroughResolver([]string{o.namesrv})))
	if err != nil {
		fail("new admin", err)
	}
	defer a.Close()
	ctx := context.Background()
	if err := a.CreateTopic(ctx, admin.WithTopicCreate(o.topic), admin.WithBrokerAddrCreate(o.broker)); err != nil {
		fail("create the topic", err)
	}
	say("admin", "step", "created")
	list, err := a.FetchAllTopicList(ctx)
	if err != nil {
		fail("list the topics", err)
	}
	for _, topic := range list.TopicList {
		if topic == o.topic {
			say("admin", "step", "listed")
		}
	}
	err = a.DeleteTopic(ctx, admin.WithTopicDelete(o.topic), admin.WithBrokerAddrDelete(o.broker),
		admin.WithNameSrvAddr([]string{o.namesrv}))
	if err != nil {
		fail("delete the topic", err)
	}
	say("admin", "step", "deleted")
}
