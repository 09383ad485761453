import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.zip.CRC32;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;

/**
 * Sends in one of the ways a producer can. For each message the broker acknowledged it prints {@code @sent}; for each failed send
 * {@code @failed}.
 */
public final class Produce {
    private static final int ASYNC_WINDOW = 32;

    private final Wire wire;
    private final DefaultMQProducer producer;
    private final String topic;
    private final String prefix;
    private final int count;

    private Produce(Wire wire) {
        this.wire = wire;
        topic = wire.text("topic");
        prefix = wire.text("prefix", topic);
        count = wire.number("count", 100);
        producer = new DefaultMQProducer(wire.text("group", topic + "_producer"));
        producer.setSendMsgTimeout(wire.number("timeout", 5000));
        producer.setRetryTimesWhenSendFailed(wire.number("retries", 3));
        producer.setRetryTimesWhenSendAsyncFailed(wire.number("retries", 3));
        producer.setDefaultTopicQueueNums(wire.number("queues", 4));
    }

    public static void main(String[] args) throws Exception {
        Wire wire = new Wire(args);
        Produce run = new Produce(wire);
        run.producer.start();
        switch (wire.text("mode")) {
            case "sync":
                run.sync();
                break;
            case "async":
                run.async();
                break;
            case "oneway":
                run.oneway();
                break;
            case "batch":
                run.batch();
                break;
            case "selector":
                run.selector();
                break;
            case "size":
                run.size();
                break;
            case "loop":
                run.loop();
                break;
            default:
                throw new IllegalArgumentException("unknown --mode");
        }
        run.producer.shutdown();
        Wire.say("done");
        System.exit(0);
    }

    private Message message(String body, int number) {
        Message message = new Message(topic, "Tag" + number % 3, body, body.getBytes(StandardCharsets.UTF_8));
        message.putUserProperty("number", String.valueOf(number));
        message.putUserProperty("text", "größe 漢字 " + number);
        return message;
    }

    private Message message(int number) {
        return message(prefix + "-" + number, number);
    }

    private static void sent(String body, SendResult result) {
        Wire.say("sent", "body", body, "status", result.getSendStatus(), "broker", result.getMessageQueue().getBrokerName(),
            "queue", result.getMessageQueue().getQueueId(), "offset", result.getQueueOffset(), "id", result.getMsgId(),
            "offsetId", result.getOffsetMsgId(), "at", System.currentTimeMillis());
    }

    private static void failed(String body, Throwable cause) {
        int code = cause instanceof MQBrokerException ? ((MQBrokerException) cause).getResponseCode() : 0;
        Wire.say("failed", "body", body, "code", code, "at", System.currentTimeMillis(), "cause", cause);
    }

    private void sync() {
        for (int i = 0; i < count; i++) {
            Message message = message(i);
            try {
                sent(message.getKeys(), producer.send(message));
            } catch (Exception cause) {
                failed(message.getKeys(), cause);
            }
        }
    }

    private void async() throws InterruptedException {
        Semaphore window = new Semaphore(ASYNC_WINDOW);
        for (int i = 0; i < count; i++) {
            Message message = message(i);
            String body = message.getKeys();
            window.acquire();
            try {
                producer.send(message, new SendCallback() {
                    @Override
                    public void onSuccess(SendResult result) {
                        sent(body, result);
                        window.release();
                    }

                    @Override
                    public void onException(Throwable cause) {
                        failed(body, cause);
                        window.release();
                    }
                });
            } catch (Exception cause) {
                failed(body, cause);
                window.release();
            }
        }
        window.tryAcquire(ASYNC_WINDOW, 60, TimeUnit.SECONDS);
    }

    private void oneway() throws Exception {
        // The first send creates the topic; a oneway send cannot be told that it did not exist yet.
        Message first = message(0);
        sent(first.getKeys(), producer.send(first));
        for (int i = 1; i < count; i++) {
            Message message = message(i);
            producer.sendOneway(message);
            Wire.say("thrown", "body", message.getKeys());
        }
        // The connection is closed by shutdown; what was written last must have been read by then.
        sent(prefix + "-last", producer.send(message(prefix + "-last", count)));
    }

    private void batch() throws Exception {
        int size = wire.number("batch", 10);
        for (int i = 0; i < count; i += size) {
            List<Message> messages = new ArrayList<>();
            for (int j = i; j < Math.min(i + size, count); j++) {
                messages.add(message(j));
            }
            SendResult result = producer.send(messages);
            String[] ids = result.getMsgId().split(",");
            String[] offsetIds = result.getOffsetMsgId().split(",");
            for (int j = 0; j < messages.size(); j++) {
                // One result for the batch: its offset is that of the first message, the others follow.
                Wire.say("sent", "body", messages.get(j).getKeys(), "status", result.getSendStatus(),
                    "broker", result.getMessageQueue().getBrokerName(), "queue", result.getMessageQueue().getQueueId(),
                    "offset", result.getQueueOffset() + j, "id", ids.length > j ? ids[j] : "",
                    "offsetId", offsetIds.length > j ? offsetIds[j] : "", "at", System.currentTimeMillis());
            }
        }
    }

    private void selector() throws Exception {
        int orders = wire.number("orders", 10);
        for (int i = 0; i < count; i++) {
            int order = i % orders;
            String body = prefix + "-" + order + "-" + i / orders;
            SendResult result = producer.send(message(body, i),
                (queues, message, argument) -> queues.get((Integer) argument % queues.size()), order);
            sent(body, result);
        }
    }

    private void size() {
        int bytes = wire.number("bytes", 1024);
        byte[] body = new byte[bytes];
        new Random(bytes).nextBytes(body);
        CRC32 crc = new CRC32();
        crc.update(body);
        producer.setMaxMessageSize(Integer.MAX_VALUE);
        producer.setCompressMsgBodyOverHowmuch(wire.flag("compress") ? 4096 : Integer.MAX_VALUE);
        producer.setSendMsgTimeout(20000);
        String name = bytes + ":" + Long.toHexString(crc.getValue());
        try {
            sent(name, producer.send(new Message(topic, body)));
        } catch (Exception cause) {
            failed(name, cause);
        }
    }

    /** Sends one after another until the input ends, whatever happens to the cluster meanwhile. */
    private void loop() throws InterruptedException {
        CountDownLatch end = Wire.untilInputEnds();
        int pause = wire.number("pause", 0);
        Wire.say("ready");
        for (int i = 0; end.getCount() > 0 && (count <= 0 || i < count); i++) {
            Message message = message(i);
            try {
                sent(message.getKeys(), producer.send(message));
            } catch (Exception cause) {
                failed(message.getKeys(), cause);
            }
            if (pause > 0) {
                end.await(pause, TimeUnit.MILLISECONDS);
            }
        }
    }
}
