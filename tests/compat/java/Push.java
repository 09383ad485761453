import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import java.util.zip.CRC32;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageClientExt;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * A push consumer. Prints {@code @got} for each message, {@code @queues} whenever the set of queues it holds changes, and shuts down
 * when its input ends.
 */
public final class Push {
    private static final int LARGE = 64 * 1024;
    private static int pause;

    private Push() {
    }

    public static void main(String[] args) throws Exception {
        Wire wire = new Wire(args);
        String topic = wire.text("topic");
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(wire.text("group"));
        Portable.setMessageModel(consumer, wire.flag("broadcast"));
        consumer.setConsumeFromWhere(wire.text("from", "first").equals("first")
            ? ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET : ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET);
        consumer.subscribe(topic, wire.text("tags", "*"));
        // Several consumers run in one home folder: the instance name keeps their client ids apart.
        consumer.setInstanceName(wire.text("instance", "DEFAULT"));
        // A heartbeat that loses a race inside the client is only repeated at the next one; 30 s is long to wait for it.
        consumer.setHeartbeatBrokerInterval(wire.number("heartbeat", 3000));
        consumer.setPollNameServerInterval(wire.number("poll", consumer.getPollNameServerInterval()));
        // Time taken over each message and messages taken in advance, for a consumer that falls behind.
        pause = wire.number("pause", 0);
        if (pause > 0) {
            consumer.setConsumeThreadMin(1);
            consumer.setConsumeThreadMax(1);
            consumer.setPullThresholdForQueue(wire.number("ahead", 1000));
            consumer.setPullBatchSize(4);
        }
        if (wire.flag("orderly")) {
            consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
                messages.forEach(Push::got);
                return ConsumeOrderlyStatus.SUCCESS;
            });
        } else {
            consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
                messages.forEach(Push::got);
                try {
                    Thread.sleep(pause);
                } catch (InterruptedException stopped) {
                    Thread.currentThread().interrupt();
                }
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
        }
        CountDownLatch end = Wire.untilInputEnds();
        consumer.start();
        Wire.say("ready", "client", consumer.buildMQClientId());
        String held = "";
        do {
            List<Integer> queues = Portable.queues(consumer, topic);
            String now = queues.stream().map(String::valueOf).collect(Collectors.joining(","));
            if (!now.equals(held)) {
                held = now;
                Wire.say("queues", "ids", held);
            }
        } while (!end.await(100, TimeUnit.MILLISECONDS));
        // The client does not wait for its listeners when it stores the offsets: what it has printed must be counted first.
        for (int i = 0; i < 100 && Portable.inHand(consumer) > 0; i++) {
            Thread.sleep(20);
        }
        consumer.shutdown();
        Wire.say("done");
        System.exit(0);
    }

    static void got(MessageExt message) {
        byte[] body = message.getBody();
        Wire.say("got", "body", body.length < LARGE ? new String(body, StandardCharsets.UTF_8) : digest(body),
            "queue", message.getQueueId(), "offset", message.getQueueOffset(), "id", message.getMsgId(),
            "offsetId", ((MessageClientExt) message).getOffsetMsgId(), "tags", message.getTags(), "keys", message.getKeys(),
            "number", message.getUserProperty("number"), "text", message.getUserProperty("text"),
            "times", message.getReconsumeTimes(), "broker", message.getBrokerName(), "at", System.currentTimeMillis());
    }

    private static String digest(byte[] body) {
        CRC32 crc = new CRC32();
        crc.update(body);
        return body.length + ":" + Long.toHexString(crc.getValue());
    }
}
