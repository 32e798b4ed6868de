import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.flink.api.common.serialization.BulkWriter;
import org.apache.flink.configuration.ConfigOption;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.ReadableConfig;
import org.apache.flink.connector.file.table.factories.BulkWriterFormatFactory;
import org.apache.flink.core.fs.FSDataOutputStream;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.StatementSet;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.table.connector.ChangelogMode;
import org.apache.flink.table.connector.format.EncodingFormat;
import org.apache.flink.table.connector.sink.DynamicTableSink;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.factories.DynamicTableFactory;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.LogicalTypeRoot;
import org.apache.flink.table.types.logical.RowType;
import org.apache.parquet.hadoop.ParquetWriter;
import org.apache.parquet.hadoop.api.WriteSupport;
import org.apache.parquet.hadoop.metadata.CompressionCodecName;
import org.apache.parquet.io.DelegatingPositionOutputStream;
import org.apache.parquet.io.OutputFile;
import org.apache.parquet.io.PositionOutputStream;
import org.apache.parquet.io.api.Binary;
import org.apache.parquet.io.api.RecordConsumer;
import org.apache.parquet.schema.LogicalTypeAnnotation;
import org.apache.parquet.schema.MessageType;
import org.apache.parquet.schema.PrimitiveType.PrimitiveTypeName;
import org.apache.parquet.schema.Type;
import org.apache.parquet.schema.Types;

/** Runs the statements of a file, all INSERTs as one job, in this process: FlinkSqlJob FILE SETTING=VALUE... */
public final class FlinkSqlJob {
    public static void main(String[] args) throws Exception {
        Configuration settings = new Configuration();
        for (String setting : Arrays.asList(args).subList(1, args.length)) {
            String[] pair = setting.split("=", 2);
            settings.setString(pair[0], pair[1]);
        }
        TableEnvironment tables = TableEnvironment.create(EnvironmentSettings.newInstance().withConfiguration(settings).build());
        StatementSet inserts = tables.createStatementSet();
        for (String statement : Files.readString(Path.of(args[0])).replaceAll("(?m)^--.*\\R", "").strip().split(";\\s*")) {
            if (statement.startsWith("INSERT")) {
                inserts.addInsertSql(statement);
            } else {
                tables.executeSql(statement);
            }
        }
        inserts.execute().await();
    }

    /** The format 'parquet', for tables of strings and longs, with the Parquet library that Spark ships. */
    public static final class ParquetFormat implements BulkWriterFormatFactory {
        @Override
        public EncodingFormat<BulkWriter.Factory<RowData>> createEncodingFormat(DynamicTableFactory.Context context, ReadableConfig options) {
            return new EncodingFormat<>() {
                @Override
                public BulkWriter.Factory<RowData> createRuntimeEncoder(DynamicTableSink.Context sink, DataType type) {
                    RowType row = (RowType) type.getLogicalType();
                    return stream -> new ParquetRows(stream, row);
                }

                @Override
                public ChangelogMode getChangelogMode() {
                    return ChangelogMode.insertOnly();
                }
            };
        }

        @Override
        public String factoryIdentifier() {
            return "parquet";
        }

        @Override
        public Set<ConfigOption<?>> requiredOptions() {
            return Set.of();
        }

        @Override
        public Set<ConfigOption<?>> optionalOptions() {
            return Set.of();
        }
    }

    private static final class ParquetRows implements BulkWriter<RowData> {
        private final ParquetWriter<RowData> writer;

        ParquetRows(FSDataOutputStream stream, RowType row) throws IOException {
            writer = new Builder(stream, row).withCompressionCodec(CompressionCodecName.ZSTD).build();
        }

        @Override
        public void addElement(RowData row) throws IOException {
            writer.write(row);
        }

        @Override
        public void flush() {}

        @Override
        public void finish() throws IOException {
            writer.close();
        }
    }

    private static final class Builder extends ParquetWriter.Builder<RowData, Builder> {
        private final RowType row;

        Builder(FSDataOutputStream stream, RowType row) {
            super(new StreamFile(stream));
            this.row = row;
        }

        @Override
        protected Builder self() {
            return this;
        }

        @Override
        protected WriteSupport<RowData> getWriteSupport(org.apache.hadoop.conf.Configuration configuration) {
            return new RowSupport(row);
        }
    }

    private static final class RowSupport extends WriteSupport<RowData> {
        private final List<String> names;
        private final boolean[] isText;
        private RecordConsumer consumer;

        RowSupport(RowType row) {
            names = row.getFieldNames();
            isText = new boolean[names.size()];
            for (int field = 0; field < isText.length; field++) {
                LogicalType type = row.getTypeAt(field);
                isText[field] = type.is(LogicalTypeRoot.VARCHAR);
                if (!isText[field] && !type.is(LogicalTypeRoot.BIGINT)) {
                    throw new IllegalArgumentException("neither STRING nor BIGINT: " + names.get(field));
                }
            }
        }

        @Override
        public WriteContext init(org.apache.hadoop.conf.Configuration configuration) {
            Type[] columns = new Type[isText.length];
            for (int field = 0; field < isText.length; field++) {
                columns[field] = isText[field]
                    ? Types.optional(PrimitiveTypeName.BINARY).as(LogicalTypeAnnotation.stringType()).named(names.get(field))
                    : Types.optional(PrimitiveTypeName.INT64).named(names.get(field));
            }
            return new WriteContext(new MessageType("row", columns), Map.of());
        }

        @Override
        public void prepareForWrite(RecordConsumer consumer) {
            this.consumer = consumer;
        }

        @Override
        public void write(RowData row) {
            consumer.startMessage();
            for (int field = 0; field < isText.length; field++) {
                if (row.isNullAt(field)) {
                    continue;
                }
                consumer.startField(names.get(field), field);
                if (isText[field]) {
                    consumer.addBinary(Binary.fromReusedByteArray(row.getString(field).toBytes()));
                } else {
                    consumer.addLong(row.getLong(field));
                }
                consumer.endField(names.get(field), field);
            }
            consumer.endMessage();
        }
    }

    /** Flink's output stream as Parquet expects it; Flink closes it. */
    private record StreamFile(FSDataOutputStream stream) implements OutputFile {
        @Override
        public PositionOutputStream create(long blockSizeHint) {
            return new DelegatingPositionOutputStream(stream) {
                @Override
                public long getPos() throws IOException {
                    return stream.getPos();
                }

                @Override
                public void close() throws IOException {
                    stream.flush();
                }
            };
        }

        @Override
        public PositionOutputStream createOrOverwrite(long blockSizeHint) {
            return create(blockSizeHint);
        }

        @Override
        public boolean supportsBlockSize() {
            return false;
        }

        @Override
        public long defaultBlockSize() {
            return 0;
        }
    }
}
