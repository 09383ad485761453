import java.lang.reflect.Method;
import java.util.List;
import java.util.stream.Collectors;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.common.message.MessageQueue;

/** What differs between the 4.x and 5.x clients, so that one source is compiled against both. */
final class Portable {
    private Portable() {
    }

    /** The enum's package moved in 5.0, so it cannot be named here. */
    static void setMessageModel(Object consumer, boolean broadcast) throws ReflectiveOperationException {
        for (Method method : consumer.getClass().getMethods()) {
            if (method.getName().equals("setMessageModel")) {
                for (Object model : method.getParameterTypes()[0].getEnumConstants()) {
                    if (model.toString().equals(broadcast ? "BROADCASTING" : "CLUSTERING")) {
                        method.invoke(consumer, model);
                        return;
                    }
                }
            }
        }
        throw new NoSuchMethodException("setMessageModel");
    }

    /** Queue ids of {@code topic} that the consumer holds now, ascending. */
    static List<Integer> queues(DefaultMQPushConsumer consumer, String topic) {
        return consumer.getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable().entrySet().stream()
            .filter(held -> held.getKey().getTopic().equals(topic) && !held.getValue().isDropped())
            .map(held -> held.getKey().getQueueId()).sorted().collect(Collectors.toList());
    }

    /** Messages that were handed to the listener or wait for it, and are not part of the group's progress yet. */
    static long inHand(DefaultMQPushConsumer consumer) {
        return consumer.getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable().values().stream()
            .mapToLong(queue -> queue.getMsgCount().get()).sum();
    }
}
