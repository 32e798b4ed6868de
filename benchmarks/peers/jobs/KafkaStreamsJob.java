import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.time.Instant;
import java.util.Arrays;
import java.util.List;
import java.util.Properties;
import java.util.stream.LongStream;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.KTable;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.state.KeyValueStore;

/** Publishes the rows of all aggregate tables: KafkaStreamsJob TOPIC OUTPUT_TOPIC SETTING=VALUE... */
public final class KafkaStreamsJob {
    private static final List<String> TYPES = List.of("click", "like", "view", "purchase");
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final ObjectReader READER = JSON.readerFor(Interaction.class);

    /** A record of the topic; its key is the user. */
    public record Interaction(String user_id, String item_id, String interaction_type, long timestamp) {
        /** What the aggregates need: the index of the type, and the time. */
        long[] event() {
            return new long[] {TYPES.indexOf(interaction_type), timestamp};
        }
    }

    public static void main(String[] args) {
        Properties settings = new Properties();
        for (String setting : Arrays.asList(args).subList(2, args.length)) {
            String[] pair = setting.split("=", 2);
            settings.put(pair[0], pair[1]);
        }
        StreamsBuilder builder = new StreamsBuilder();
        define(builder, args[0], args[1]);
        KafkaStreams streams = new KafkaStreams(builder.build(settings), new StreamsConfig(settings));
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
            return null;
        });
        streams.start();
    }

    private static void define(StreamsBuilder builder, String topic, String output) {
        KStream<String, Interaction> interactions =
            builder.stream(topic, Consumed.with(Serdes.String(), Serdes.serdeFrom((t, each) -> null, (t, bytes) -> parse(bytes))));
        // The counts of each type, then the latest time.
        KTable<String, long[]> users = interactions
            .mapValues(Interaction::event)
            .groupByKey(Grouped.with(Serdes.String(), LONGS))
            .aggregate(() -> new long[5], (user, event, counts) -> count(counts, event), inMemory("users"));
        KTable<String, long[]> items = interactions
            .map((user, each) -> KeyValue.pair(each.item_id, each.event()))
            .groupByKey(Grouped.with("by-item", Serdes.String(), LONGS))
            .aggregate(() -> new long[5], (item, event, counts) -> count(counts, event), inMemory("items"));
        // The number of interactions, of users, and the latest time.
        KTable<String, long[]> overall = users
            .groupBy((user, counts) -> KeyValue.pair("", counts), Grouped.with("by-nothing", Serdes.String(), LONGS))
            .aggregate(
                () -> new long[3],
                (key, user, sums) -> new long[] {sums[0] + total(user), sums[1] + 1, Math.max(sums[2], user[4])},
                (key, user, sums) -> new long[] {sums[0] - total(user), sums[1] - 1, sums[2]},
                inMemory("overall"));
        Produced<String, String> text = Produced.with(Serdes.String(), Serdes.String());
        users.toStream().map((user, counts) -> KeyValue.pair("agg_interactions_user-" + user, userRow(user, counts))).to(output, text);
        items.toStream().map((item, counts) -> KeyValue.pair("agg_interactions_item-" + item, itemRow(item, counts))).to(output, text);
        overall.toStream().map((key, sums) -> KeyValue.pair("avg_interactions", overallRow(sums))).to(output, text);
    }

    private static Interaction parse(byte[] bytes) {
        try {
            return READER.readValue(bytes);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    private static long[] count(long[] counts, long[] event) {
        counts[(int) event[0]]++;
        counts[4] = Math.max(counts[4], event[1]);
        return counts;
    }

    private static LongStream seen(long[] counts) {
        return Arrays.stream(counts, 0, 4).filter(count -> count > 0);
    }

    private static long total(long[] counts) {
        return counts[0] + counts[1] + counts[2] + counts[3];
    }

    private static String userRow(String user, long[] counts) {
        ObjectNode row = JSON.createObjectNode().put("user_id", user);
        for (int type = 0; type < TYPES.size(); type++) {
            row.put("total_" + TYPES.get(type), counts[type]);
        }
        row.put("total_interactions", total(counts)).put("avg_interactions", ratio(total(counts), seen(counts).count()));
        return withLast(row, counts[4]);
    }

    private static String itemRow(String item, long[] counts) {
        ObjectNode row = JSON.createObjectNode().put("item_id", item);
        row.put("min_interactions", seen(counts).min().getAsLong()).put("max_interactions", seen(counts).max().getAsLong());
        return withLast(row, counts[4]);
    }

    private static String overallRow(long[] sums) {
        return withLast(JSON.createObjectNode().put("avg_interactions", ratio(sums[0], sums[1])), sums[2]);
    }

    private static String withLast(ObjectNode row, long seconds) {
        return row.put("last_interaction", Instant.ofEpochSecond(seconds).toString()).toString();
    }

    /** Rounded half up to two places, in whole numbers. */
    private static double ratio(long total, long count) {
        return (200 * total + count) / (2 * count) / 100.0;
    }

    private static Materialized<String, long[], KeyValueStore<Bytes, byte[]>> inMemory(String store) {
        return Materialized.<String, long[], KeyValueStore<Bytes, byte[]>>as(store)
            .withStoreType(Materialized.StoreType.IN_MEMORY)
            .withKeySerde(Serdes.String())
            .withValueSerde(LONGS);
    }

    private static final Serde<long[]> LONGS = Serdes.serdeFrom(
        (topic, longs) -> {
            if (longs == null) {
                return null;
            }
            ByteBuffer bytes = ByteBuffer.allocate(longs.length * Long.BYTES);
            bytes.asLongBuffer().put(longs);
            return bytes.array();
        },
        (topic, bytes) -> {
            if (bytes == null) {
                return null;
            }
            long[] longs = new long[bytes.length / Long.BYTES];
            ByteBuffer.wrap(bytes).asLongBuffer().get(longs);
            return longs;
        });
}
