import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.CountDownLatch;

/** What the drivers share: options from the command line, records to the harness, and the end of standard input. */
final class Wire {
    private final Map<String, String> options = new HashMap<>();

    /** Reads {@code --name value} pairs. */
    Wire(String[] args) {
        if (args.length % 2 != 0) {
            throw new IllegalArgumentException("options come as --name value");
        }
        for (int i = 0; i < args.length; i += 2) {
            options.put(args[i].substring(2), args[i + 1]);
        }
    }

    String text(String name) {
        String value = options.get(name);
        if (value == null) {
            throw new IllegalArgumentException("--" + name + " is missing");
        }
        return value;
    }

    String text(String name, String otherwise) {
        return options.getOrDefault(name, otherwise);
    }

    int number(String name, int otherwise) {
        String value = options.get(name);
        return value == null ? otherwise : Integer.parseInt(value);
    }

    boolean flag(String name) {
        return Boolean.parseBoolean(text(name, "false"));
    }

    /** Prints one record, {@code @kind<TAB>name=value…}; names and values alternate. */
    static void say(String kind, Object... fields) {
        StringBuilder line = new StringBuilder("@").append(kind);
        for (int i = 0; i < fields.length; i += 2) {
            String value = String.valueOf(fields[i + 1]).replace('\t', ' ').replace('\n', ' ');
            line.append('\t').append(fields[i]).append('=').append(value);
        }
        byte[] bytes = line.append('\n').toString().getBytes(StandardCharsets.UTF_8);
        synchronized (System.out) {
            System.out.write(bytes, 0, bytes.length);
            System.out.flush();
        }
    }

    /** Opens once the harness closes our standard input, which asks for a clean shutdown. */
    static CountDownLatch untilInputEnds() {
        CountDownLatch ended = new CountDownLatch(1);
        Thread reader = new Thread(() -> {
            try {
                while (System.in.read() >= 0) {
                    // Only the end matters.
                }
            } catch (java.io.IOException closed) {
                // A broken input is an ended one.
            }
            ended.countDown();
        }, "until-input-ends");
        reader.setDaemon(true);
        reader.start();
        return ended;
    }
}
