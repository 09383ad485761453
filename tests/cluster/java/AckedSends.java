import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;

import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * An unmodified client with its default settings, but for how often it asks for routes: sends one message after the other to one queue until its standard
 * input ends, one attempt each, and prints a line for each:
 *
 * <pre>
 * ACK seq started finished queue offset offsetMsgId
 * ERR seq started finished text
 * </pre>
 *
 * Times are System.nanoTime, which the harness reads from the same clock.
 */
public final class AckedSends {
    public static void main(String[] args) throws Exception {
        String nameservers = args[0];
        String topic = args[1];
        int queue = Integer.parseInt(args[2]);
        int producerNumber = Integer.parseInt(args[3]);
        long pauseMillis = Long.parseLong(args[4]);
        int pollMillis = Integer.parseInt(args[5]);

        AtomicBoolean stopped = new AtomicBoolean();
        Thread watcher = new Thread(() -> {
            try {
                while (System.in.read() >= 0) {
                    // Only the end matters.
                }
            } catch (IOException e) {
                // As good as the end.
            }
            stopped.set(true);
        });
        watcher.setDaemon(true);
        watcher.start();

        DefaultMQProducer producer = new DefaultMQProducer("HARNESS_JAVA_PRODUCER");
        producer.setNamesrvAddr(nameservers);
        producer.setPollNameServerInterval(pollMillis);
        producer.setCompressMsgBodyOverHowmuch(Integer.MAX_VALUE);
        producer.start();
        for (int seq = 0; !stopped.get(); seq++) {
            String key = "p" + producerNumber + "-" + seq;
            byte[] body = body(key, producerNumber, seq, 200);
            Message message = new Message(topic, "java", key, body);
            long started = System.nanoTime();
            String line;
            try {
                SendResult result = producer.send(message, AckedSends::select, queue);
                long finished = System.nanoTime();
                line = "ACK " + seq + " " + started + " " + finished + " "
                    + result.getMessageQueue().getQueueId() + " " + result.getQueueOffset() + " "
                    + result.getOffsetMsgId();
            } catch (Exception e) {
                long finished = System.nanoTime();
                String text = String.valueOf(e.getMessage()).replace('\n', ' ').replace('\r', ' ');
                line = "ERR " + seq + " " + started + " " + finished + " "
                    + e.getClass().getSimpleName() + ": " + text;
                Thread.sleep(10);
            }
            System.out.println(line);
            System.out.flush();
            if (pauseMillis > 0) {
                Thread.sleep(pauseMillis);
            }
        }
        producer.shutdown();
        System.exit(0);
    }

    private static MessageQueue select(List<MessageQueue> queues, Message message, Object wanted) {
        for (MessageQueue queue : queues) {
            if (queue.getQueueId() == (Integer) wanted) {
                return queue;
            }
        }
        throw new IllegalStateException("queue " + wanted + " is not in the route");
    }

    /** The body that the harness expects of a key; the same arithmetic as in its history module. */
    private static byte[] body(String key, int producerNumber, int seq, int size) {
        StringBuilder text = new StringBuilder(size).append(key).append(' ');
        int state = (producerNumber * 0x9E3779B9) ^ (seq + 1);
        while (text.length() < size) {
            state = state * 1664525 + 1013904223;
            text.append((char) ('a' + (state >>> 24) % 26));
        }
        return text.toString().getBytes(StandardCharsets.US_ASCII);
    }
}
