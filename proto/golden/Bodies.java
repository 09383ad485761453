import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.Type;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.Collection;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Scanner;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Prints RocketMQ's JSON bodies, every field set to a value of its own, as the published jars encode them.
 * With the argument "check" it reads such lines instead, and prints those that the jars decode to something else.
 *
 *   javac -cp 'LIB/*' Bodies.java && cut -f1 bodies-5.5.0.txt | java -cp 'LIB/*:.' Bodies > bodies-VERSION.txt
 */
public class Bodies {
    static final String[] PACKAGES = {
        "remoting.protocol.body.", "remoting.protocol.heartbeat.", "remoting.protocol.route.", "remoting.protocol.admin.",
        "remoting.protocol.subscription.", "remoting.protocol.", "remoting.protocol.topic.", "common.protocol.body.",
        "common.protocol.heartbeat.", "common.protocol.route.", "common.protocol.topic.", "common.admin.",
        "common.subscription.", "common.protocol.header.", "remoting.protocol.header.", "common.", "common.message.",
    };

    static long count;

    static Class<?> find(String name) {
        for (String p : PACKAGES) {
            try {
                return Class.forName("org.apache.rocketmq." + p + name);
            } catch (ClassNotFoundException e) {
                // The next package.
            }
        }
        return null;
    }

    static Object value(Type type, String name) throws Exception {
        if (type instanceof ParameterizedType) {
            return container((ParameterizedType) type);
        }
        Class<?> c = (Class<?>) type;
        count++;
        if (c == String.class) return name + count;
        if (c == int.class || c == Integer.class) return (int) count;
        if (c == long.class || c == Long.class) return 1000000000000L + count;
        if (c == boolean.class || c == Boolean.class) return true;
        if (c == double.class || c == Double.class) return count + 0.5;
        if (c == AtomicLong.class) return new AtomicLong(count);
        if (c.isEnum()) return c.getEnumConstants()[Math.min(1, c.getEnumConstants().length - 1)];
        if (c == long[].class) return new long[] {1, 2};
        if (c == BitSet.class) return BitSet.valueOf(new long[] {513});
        if (c == Properties.class) {
            Properties p = new Properties();
            p.setProperty("p" + count, "v");
            return p;
        }
        if (!c.getName().startsWith("org.apache.rocketmq")) return null;
        Object made = null;
        Constructor<?>[] constructors = c.getDeclaredConstructors();
        Arrays.sort(constructors, Comparator.comparingInt(Constructor::getParameterCount));
        for (Constructor<?> k : constructors) {
            if (made != null || Arrays.asList(k.getParameterTypes()).contains(c)) continue;
            Object[] arguments = new Object[k.getParameterCount()];
            try {
                for (int i = 0; i < arguments.length; i++) {
                    arguments[i] = value(k.getGenericParameterTypes()[i], "a");
                }
                k.setAccessible(true);
                made = k.newInstance(arguments);
            } catch (Exception e) {
                // The next constructor.
            }
        }
        fill(made);
        return made;
    }

    @SuppressWarnings({"unchecked", "rawtypes"})
    static Object container(ParameterizedType type) throws Exception {
        Class<?> raw = (Class<?>) type.getRawType();
        Type[] of = type.getActualTypeArguments();
        if (Map.class.isAssignableFrom(raw)) {
            Map map = raw.isAssignableFrom(ConcurrentHashMap.class) ? new ConcurrentHashMap()
                : raw.isAssignableFrom(TreeMap.class) ? new TreeMap() : (Map) raw.getDeclaredConstructor().newInstance();
            if (of[0] == Integer.class) {
                map.put(0, value(of[1], "v"));
                map.put(1, value(of[1], "v"));
            } else if (of[0] == Long.class) {
                map.put(0L, value(of[1], "v"));
                map.put(1L, value(of[1], "v"));
            } else {
                map.put(value(of[0], "k"), value(of[1], "v"));
            }
            return map;
        }
        if (Collection.class.isAssignableFrom(raw)) {
            Collection c = raw.isAssignableFrom(ArrayList.class) ? new ArrayList()
                : raw.isAssignableFrom(LinkedHashSet.class) ? new LinkedHashSet() : (Collection) raw.getDeclaredConstructor().newInstance();
            c.add(value(of[0], "e"));
            return c;
        }
        return null;
    }

    @SuppressWarnings({"unchecked", "rawtypes"})
    static void fill(Object object) throws Exception {
        for (Class<?> c = object.getClass(); c.getName().startsWith("org.apache.rocketmq"); c = c.getSuperclass()) {
            for (Field f : c.getDeclaredFields()) {
                if (Modifier.isStatic(f.getModifiers()) || Modifier.isTransient(f.getModifiers())) continue;
                f.setAccessible(true);
                Object value = value(f.getGenericType(), f.getName());
                if (value == null) continue;
                if (!Modifier.isFinal(f.getModifiers())) {
                    f.set(object, value);
                } else if (value instanceof Map) {
                    ((Map) f.get(object)).putAll((Map) value);
                } else if (value instanceof Collection) {
                    ((Collection) f.get(object)).addAll((Collection) value);
                }
            }
        }
    }

    public static void main(String[] args) throws Exception {
        Class<?> codec = Class.forName("org.apache.rocketmq.remoting.protocol.RemotingSerializable");
        Method encode = codec.getMethod("toJson", Object.class, boolean.class);
        Method decode = codec.getMethod("fromJson", String.class, Class.class);
        Scanner in = new Scanner(System.in, "UTF-8");
        while (in.hasNextLine()) {
            String[] line = in.nextLine().split("\t", 2);
            Class<?> c = find(line[0]);
            if (c == null) continue;
            if (args.length == 0) {
                count = 0;
                System.out.println(line[0] + "\t" + encode.invoke(null, value(c, ""), false));
                continue;
            }
            // Only numeric keys are written differently: Java leaves their quotes out.
            String again = ((String) encode.invoke(null, decode.invoke(null, line[1], c), false)).replaceAll("([{,])(\\d+):", "$1\"$2\":");
            if (!again.equals(line[1])) System.out.println(line[0] + "\n  ours " + line[1] + "\n  java " + again);
        }
        System.exit(0);
    }
}
