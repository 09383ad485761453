import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.HashMap;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.sysflag.MessageSysFlag;
import org.apache.rocketmq.remoting.protocol.DataVersion;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;
import org.apache.rocketmq.remoting.protocol.SerializeType;
import org.apache.rocketmq.remoting.protocol.body.RegisterBrokerBody;
import org.apache.rocketmq.remoting.protocol.header.SendMessageRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.SendMessageRequestHeaderV2;

/**
 * Prints frames, records, a batch and a registration as the published jars encode them, in hexadecimal digits.
 *
 *   javac -cp 'LIB/*' Frames.java && java -Drocketmq.remoting.version=479 -cp 'LIB/*:.' Frames > frames-VERSION.txt
 */
public class Frames {
    static void print(String name, byte[] bytes) {
        StringBuilder hex = new StringBuilder();
        for (byte b : bytes) hex.append(String.format("%02x", b));
        System.out.println(name + "\t" + hex);
    }

    static byte[] bytes(ByteBuffer buffer) {
        byte[] bytes = new byte[buffer.remaining()];
        buffer.get(bytes);
        return bytes;
    }

    static void send(String name, SerializeType type) {
        SendMessageRequestHeader header = new SendMessageRequestHeader();
        header.setProducerGroup("group");
        header.setTopic("Topic\u4e2d");
        header.setDefaultTopic("TBW102");
        header.setDefaultTopicQueueNums(4);
        header.setQueueId(3);
        header.setSysFlag(1);
        header.setBornTimestamp(1700000000000L);
        header.setFlag(5);
        header.setProperties("KEYS\u0001a \"b\"\\\u0002TAGS\u0001t\ud83d\ude00\u0002");
        header.setReconsumeTimes(2);
        header.setUnitMode(true);
        header.setBatch(false);
        header.setMaxReconsumeTimes(16);
        RemotingCommand command = RemotingCommand.createRequestCommand(310,
            SendMessageRequestHeaderV2.createSendMessageRequestHeaderV2(header));
        command.setOpaque(77);
        command.setRemark("remark\n");
        command.setSerializeTypeCurrentRPC(type);
        command.setBody("body".getBytes());
        print(name, bytes(command.encode()));
    }

    static void record(String name, String topic, String born, String store) throws Exception {
        MessageExt message = new MessageExt();
        message.setTopic(topic);
        message.setBody("hello".getBytes());
        message.setQueueId(3);
        message.setFlag(4);
        message.setQueueOffset(5);
        message.setCommitLogOffset(6);
        message.setSysFlag(MessageSysFlag.TRANSACTION_COMMIT_TYPE);
        message.setBornTimestamp(7);
        message.setBornHost(new InetSocketAddress(born, 8));
        message.setStoreTimestamp(9);
        message.setStoreHost(new InetSocketAddress(store, 10911));
        message.setReconsumeTimes(11);
        message.setPreparedTransactionOffset(12);
        if (born.indexOf(':') >= 0) message.setBornHostV6Flag();
        if (store.indexOf(':') >= 0) message.setStoreHostAddressV6Flag();
        message.setTags("t");
        print(name, MessageDecoder.encode(message, false));
    }

    public static void main(String[] args) throws Exception {
        send("json", SerializeType.JSON);
        send("binary", SerializeType.ROCKETMQ);
        record("record v4", "T", "10.0.0.1", "127.0.0.1");
        record("record v6", "T", "fe80::1", "fe80::2");
        Message first = new Message("T", "one".getBytes());
        first.setFlag(1);
        first.putUserProperty("k", "v");
        Message second = new Message("T", "two".getBytes());
        print("batch", MessageDecoder.encodeMessages(Arrays.asList(first, second)));
        RegisterBrokerBody body = new RegisterBrokerBody();
        DataVersion version = body.getTopicConfigSerializeWrapper().getDataVersion();
        version.setTimestamp(5);
        TopicConfig topic = new TopicConfig("T", 8, 4, 6, 0);
        topic.setAttributes(new HashMap<>());
        topic.getAttributes().put("message.type", "FIFO");
        body.getTopicConfigSerializeWrapper().getTopicConfigTable().put("T", topic);
        print("registration", body.encode(true));
        System.exit(0);
    }
}
