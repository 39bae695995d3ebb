import java.io.*;
import java.nio.charset.StandardCharsets;
import java.sql.*;
import java.util.*;
import java.util.concurrent.*;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;

/** JDBC: server-side prepared statements after five runs, batches, fetch sizes, binary transfer, query timeouts. */
public class Jdbc {
    static void say(Object... words) {
        StringJoiner j = new StringJoiner(" ");
        for (Object w : words) j.add(String.valueOf(w));
        System.out.println(j);
        System.out.flush();
    }

    static Connection connect(String... more) throws SQLException {
        Properties p = new Properties();
        p.setProperty("user", System.getenv("PGUSER"));
        p.setProperty("password", System.getenv("PGPASSWORD"));
        p.setProperty("sslmode", System.getenv("PGSSLMODE"));
        if (System.getenv("PGSSLROOTCERT") != null) p.setProperty("sslrootcert", System.getenv("PGSSLROOTCERT"));
        for (int i = 0; i < more.length; i += 2) p.setProperty(more[i], more[i + 1]);
        return DriverManager.getConnection("jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE"), p);
    }

    interface Try { Object run() throws Exception; }

    static String fails(Try t) {
        try {
            t.run();
            return "no error";
        } catch (SQLException e) {
            SQLException last = e;
            while (e instanceof BatchUpdateException && last.getNextException() != null) last = last.getNextException(); // its own is the statement's
            if ("08006".equals(last.getSQLState())) return "lost";
            return last.getSQLState() + (last.getMessage().startsWith("ERROR: hoopctl:") ? " hoopctl:" : "");
        } catch (Exception e) {
            return e.toString();
        }
    }

    static Object one(Connection c, String sql, Object... args) throws SQLException {
        try (PreparedStatement s = c.prepareStatement(sql)) {
            for (int i = 0; i < args.length; i++) s.setObject(i + 1, args[i]);
            if (!s.execute()) return s.getUpdateCount();
            ResultSet r = s.getResultSet();
            return r.next() ? r.getObject(1) : null;
        }
    }

    static void ordinary() throws Exception {
        Connection c = connect();
        for (int i = 0; i < 2; i++) {
            PreparedStatement s = c.prepareStatement("SELECT ?::int8, ?::text, ?::numeric, ?::date, ?::bytea, '{1,NULL,3}'::int[], '{\"a\": [1]}'::jsonb, ?::timestamptz, true, 1.5::float8, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid");
            s.setLong(1, 1L << 40); s.setString(2, "ünï"); s.setBigDecimal(3, new java.math.BigDecimal("1.50")); s.setDate(4, java.sql.Date.valueOf("2024-02-29"));
            s.setBytes(5, new byte[] {0, (byte) 255}); s.setNull(6, Types.TIMESTAMP_WITH_TIMEZONE);
            for (int n = 0; n < 8; n++) { // from the fifth on as a named statement, with binary results
                ResultSet r = s.executeQuery();
                r.next();
                if (n == 0 || n == 7) say("types:", r.getLong(1), r.getString(2), r.getBigDecimal(3), r.getDate(4), Arrays.toString(r.getBytes(5)), r.getArray(6), r.getObject(7), r.getObject(8), r.getBoolean(9), r.getDouble(10), r.getObject(11));
            }
            ResultSetMetaData m = s.getMetaData();
            say("columns:", m.getColumnCount(), m.getColumnTypeName(3), m.getColumnTypeName(6));
            c = connect("prepareThreshold", "-1"); // binary at once
        }
        c = connect();
        PreparedStatement stale = c.prepareStatement("SELECT * FROM things WHERE id = ?");
        stale.setInt(1, 1);
        for (int i = 0; i < 8; i++) stale.executeQuery();
        one(c, "ALTER TABLE things ADD COLUMN more int");
        say("after DDL:", fails(() -> { ResultSet r = stale.executeQuery(); r.next(); return null; }));
        one(c, "ALTER TABLE things DROP COLUMN more");
        PreparedStatement in = c.prepareStatement("INSERT INTO things VALUES (?, ?)");
        for (int i = 0; i < 500; i++) { in.setInt(1, 200 + i); in.setString(2, "n" + i); in.addBatch(); }
        say("batch:", Arrays.stream(in.executeBatch()).sum());
        for (int id : new int[] {800, 200, 801}) { in.setInt(1, id); in.setString(2, "x"); in.addBatch(); }
        say("broken batch:", fails(in::executeBatch), one(c, "SELECT count(*) FROM things WHERE id >= 800"));
        PreparedStatement keys = c.prepareStatement("INSERT INTO things VALUES (?, ?)", Statement.RETURN_GENERATED_KEYS);
        for (int i = 0; i < 3; i++) { keys.setInt(1, 900 + i); keys.setString(2, "k"); keys.addBatch(); }
        keys.executeBatch();
        ResultSet k = keys.getGeneratedKeys();
        int sum = 0;
        while (k.next()) sum += k.getInt(1);
        say("generated keys:", sum);
        Connection rewriting = connect("reWriteBatchedInserts", "true");
        PreparedStatement re = rewriting.prepareStatement("INSERT INTO things VALUES (?, ?)");
        for (int i = 0; i < 100; i++) { re.setInt(1, 3000 + i); re.setString(2, "r"); re.addBatch(); }
        re.executeBatch();
        say("rewritten batch:", one(rewriting, "SELECT count(*) FROM things WHERE id >= 3000"));
        CopyManager copy = ((PGConnection) c).getCopyAPI();
        StringBuilder rows = new StringBuilder();
        for (int i = 0; i < 1000; i++) rows.append(1000 + i).append("\trow\\t").append(i).append('\n');
        say("copy:", copy.copyIn("COPY things FROM STDIN", new StringReader(rows.toString())));
        StringWriter out = new StringWriter();
        say("copy out:", copy.copyOut("COPY (SELECT * FROM things WHERE id >= 1000 ORDER BY id) TO STDOUT", out), out.toString().length());
        say("bad copy:", fails(() -> copy.copyIn("COPY things FROM STDIN", new StringReader("x\ty\n"))));
        c.setAutoCommit(false);
        Statement fetch = c.createStatement();
        fetch.setFetchSize(300);
        ResultSet r = fetch.executeQuery("SELECT n FROM generate_series(1, 2000) n");
        sum = 0;
        while (r.next()) sum += r.getInt(1);
        say("fetch size:", sum);
        r = fetch.executeQuery("SELECT n FROM generate_series(1, 100000) n");
        r.next();
        r.close();
        Savepoint sp = c.setSavepoint("sp");
        Connection d = c;
        say("savepoint:", fails(() -> one(d, "INSERT INTO things VALUES (1, 'x')")));
        c.rollback(sp);
        say("in a failed transaction:", fails(() -> one(d, "SELECT 1/0")), fails(() -> one(d, "SELECT 1")));
        c.rollback();
        c.setAutoCommit(true);
        Connection auto = connect("autosave", "always");
        auto.setAutoCommit(false);
        say("autosave:", fails(() -> one(auto, "SELECT 1/0")), one(auto, "SELECT 1"));
        auto.rollback();
        Statement several = c.createStatement();
        boolean more = several.execute("SELECT 1; SELECT 2, 3; INSERT INTO things VALUES (4000, NULL)");
        StringBuilder s = new StringBuilder();
        for (; more || several.getUpdateCount() != -1; more = several.getMoreResults()) s.append(more ? "rows " : "count " + several.getUpdateCount());
        say("several:", s);
        CallableStatement call = c.prepareCall("{? = call upper(?)}");
        call.registerOutParameter(1, Types.VARCHAR);
        call.setString(2, "called");
        call.execute();
        say("call:", call.getString(1));
        say("large:", ((String) one(c, "SELECT repeat('y', 5000000)")).length(), ((byte[]) one(c, "SELECT ?::bytea", (Object) new byte[3000000])).length);
        ResultSet many = c.createStatement().executeQuery("SELECT n, repeat('x', 50) FROM generate_series(1, 50000) n");
        int n = 0;
        while (many.next()) n++;
        say("many rows:", n);
        Statement slow = c.createStatement();
        slow.setQueryTimeout(1);
        say("timeout:", fails(() -> slow.executeQuery("SELECT pg_sleep(60)")), one(c, "SELECT 1"));
        DatabaseMetaData meta = c.getMetaData();
        ResultSet t = meta.getColumns(null, "public", "things", null);
        StringJoiner names = new StringJoiner(",");
        while (t.next()) names.add(t.getString("COLUMN_NAME") + " " + t.getString("TYPE_NAME"));
        ResultSet pk = meta.getPrimaryKeys(null, "public", "things");
        pk.next();
        say("metadata:", names, pk.getString("PK_NAME"), meta.getTables(null, "public", "%", new String[] {"TABLE"}).next());
        one(c, "LISTEN news");
        one(connect(), "NOTIFY news, 'from another'");
        org.postgresql.PGNotification[] heard = ((PGConnection) c).getNotifications(60_000);
        say("notify:", heard[0].getName(), heard[0].getParameter());
        Statement noisy = c.createStatement();
        noisy.execute("DO $$ BEGIN RAISE NOTICE 'hear, hear'; END $$");
        say("notice:", noisy.getWarnings().getMessage());
        for (String mode : new String[] {"simple", "extended", "extendedForPrepared", "extendedCacheEverything"}) {
            Connection x = connect("preferQueryMode", mode);
            say("mode " + mode + ":", one(x, "SELECT 40 + ?", 2), fails(() -> one(x, "SELECT 1/0")), one(x, "SELECT 1"));
            x.close();
        }
        ExecutorService pool = Executors.newFixedThreadPool(8);
        List<Future<Integer>> work = new ArrayList<>();
        for (int i = 0; i < 8; i++) {
            int w = i;
            work.add(pool.submit(() -> {
                int total = 0;
                try (Connection mine = connect()) {
                    for (int j = 0; j < 25; j++) total += (Integer) one(mine, "SELECT ?::int * ?::int", w, j);
                }
                return total;
            }));
        }
        sum = 0;
        for (Future<Integer> f : work) sum += f.get();
        pool.shutdown();
        say("pool:", sum);
        say("done");
    }

    static void refused() throws Exception {
        Connection c = connect();
        say("refused:", fails(() -> one(c, "SELECT * FROM forbidden WHERE id = ?", 1)));
        say("goes on:", one(c, "SELECT 1"));
        c.setAutoCommit(false);
        say("refused in a transaction:", fails(() -> one(c, "DELETE FROM forbidden WHERE id = 1")).substring(0, 5));
        say("in the transaction:", fails(() -> one(c, "SELECT 1")));
        c.rollback();
        c.setAutoCommit(true);
        say("goes on:", one(c, "SELECT 1"));
        Statement batch = c.createStatement();
        batch.addBatch("INSERT INTO things VALUES (100, NULL)");
        batch.addBatch("DELETE FROM forbidden WHERE id = 1");
        batch.addBatch("INSERT INTO things VALUES (101, NULL)");
        c.setAutoCommit(false);
        say("refused in a batch:", fails(batch::executeBatch).substring(0, 5));
        c.rollback();
        c.setAutoCommit(true);
        say("goes on:", one(c, "SELECT count(*) FROM things WHERE id >= 100"));
        say("@approve");
        say("approved:", one(c, "UPDATE held SET n = n + 1"));
        Statement held = c.createStatement();
        held.setQueryTimeout(1);
        say("withdrawn:", fails(() -> held.execute("DELETE FROM held")).substring(0, 5));
        say("goes on:", (Integer) one(c, "SELECT 1") - 1);
        c.setAutoCommit(false);
        say("hold over in a transaction:", fails(() -> one(c, "DELETE FROM held")).substring(0, 5));
        c.rollback();
        say("goes on:", (Integer) one(c, "SELECT 1") - 1);
        c.rollback();
        c.setAutoCommit(true);
        say("@end");
        say("ended:", fails(() -> one(c, "SELECT pg_sleep(60)")));
        Connection again = connect();
        say("again:", one(again, "SELECT 1"));
        say("@revoke");
        say("revoked:", fails(() -> one(again, "SELECT pg_sleep(60)")));
        try {
            connect();
            say("no more: connected");
        } catch (SQLException e) {
            say("no more: refused");
        }
    }

    public static void main(String[] args) throws Exception {
        if (System.getenv("STAGE").equals("ordinary")) ordinary();
        else refused();
        System.exit(0);
    }
}
