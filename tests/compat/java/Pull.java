import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** The pull consumers. Prints {@code @got} for each message and {@code @queue} with the offsets of each queue. */
public final class Pull {
    private static final int BATCH = 7;

    private final Wire wire;
    private final String topic;
    private final String group;

    private Pull(Wire wire) {
        this.wire = wire;
        topic = wire.text("topic");
        group = wire.text("group");
    }

    public static void main(String[] args) throws Exception {
        Pull run = new Pull(new Wire(args));
        switch (run.wire.text("mode")) {
            case "subscribe":
                run.subscribe();
                break;
            case "assign":
                run.assign();
                break;
            case "classic":
                run.classic();
                break;
            case "offsets":
                run.offsets();
                break;
            default:
                throw new IllegalArgumentException("unknown --mode");
        }
        Wire.say("done");
        System.exit(0);
    }

    /** The lite pull consumer as a member of its group, until the input ends. */
    private void subscribe() throws Exception {
        DefaultLitePullConsumer consumer = new DefaultLitePullConsumer(group);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setHeartbeatBrokerInterval(3000);
        consumer.subscribe(topic, wire.text("tags", "*"));
        CountDownLatch end = Wire.untilInputEnds();
        consumer.start();
        Wire.say("ready");
        while (end.getCount() > 0) {
            consumer.poll(500).forEach(Push::got);
        }
        consumer.shutdown();
    }

    /** The lite pull consumer with queues of its own choice: from the beginning to the end, then its commit. */
    private void assign() throws Exception {
        DefaultLitePullConsumer consumer = new DefaultLitePullConsumer(group);
        consumer.setAutoCommit(false);
        consumer.start();
        Collection<MessageQueue> queues = consumer.fetchMessageQueues(topic);
        consumer.assign(queues);
        for (MessageQueue queue : queues) {
            consumer.seekToBegin(queue);
        }
        int expected = wire.number("count", 0);
        long deadline = System.currentTimeMillis() + wire.number("wait", 30000);
        for (int got = 0; got < expected && System.currentTimeMillis() < deadline; ) {
            List<MessageExt> messages = consumer.poll(500);
            messages.forEach(Push::got);
            got += messages.size();
        }
        consumer.commitSync();
        for (MessageQueue queue : queues) {
            Wire.say("queue", "id", queue.getQueueId(), "committed", consumer.committed(queue),
                "first", consumer.offsetForTimestamp(queue, 0L));
        }
        consumer.shutdown();
    }

    /** The older pull consumer: every queue from its minimum to its maximum, offsets stored by hand. */
    private void classic() throws Exception {
        DefaultMQPullConsumer consumer = new DefaultMQPullConsumer(group);
        consumer.start();
        for (MessageQueue queue : consumer.fetchSubscribeMessageQueues(topic)) {
            long min = consumer.minOffset(queue);
            long max = consumer.maxOffset(queue);
            long next = min;
            while (next < max) {
                PullResult result = consumer.pull(queue, wire.text("tags", "*"), next, BATCH);
                if (result.getPullStatus() == PullStatus.FOUND) {
                    result.getMsgFoundList().forEach(Push::got);
                }
                next = result.getNextBeginOffset();
            }
            PullResult beyond = consumer.pull(queue, "*", max, BATCH);
            PullResult far = consumer.pull(queue, "*", max + 1000, BATCH);
            consumer.updateConsumeOffset(queue, next);
            consumer.getOffsetStore().updateOffset(queue, next, false);
            consumer.getOffsetStore().persist(queue);
            Wire.say("queue", "id", queue.getQueueId(), "min", min, "max", max, "next", next,
                "atEnd", beyond.getPullStatus(), "beyond", far.getPullStatus(), "corrected", far.getNextBeginOffset(),
                "first", consumer.searchOffset(queue, 0), "last", consumer.searchOffset(queue, Long.MAX_VALUE / 2));
        }
        consumer.shutdown();
    }

    /** Only the offsets: bounds of each queue and what the group has stored. */
    private void offsets() throws Exception {
        DefaultMQPullConsumer consumer = new DefaultMQPullConsumer(group);
        consumer.start();
        Set<MessageQueue> queues = consumer.fetchSubscribeMessageQueues(topic);
        for (MessageQueue queue : new ArrayList<>(queues)) {
            Wire.say("queue", "id", queue.getQueueId(), "min", consumer.minOffset(queue), "max", consumer.maxOffset(queue),
                "stored", consumer.fetchConsumeOffset(queue, true));
        }
        consumer.shutdown();
    }
}
