import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import org.apache.rocketmq.tools.command.MQAdminStartup;

/**
 * Runs the published mqadmin's main once for each line of its input, whose words are separated by tabs. Prints {@code @end} after what
 * each run printed. One JVM for many commands, because starting one takes longer than any of them.
 */
public final class Admin {
    private Admin() {
    }

    public static void main(String[] args) throws Exception {
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            // Options without a value are empty words.
            MQAdminStartup.main(line.split("\t", -1));
            // The last line may lack its end.
            System.out.println();
            Wire.say("end");
        }
        System.exit(0);
    }
}
