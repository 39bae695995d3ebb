"""psycopg 3: server-side parameters, binary results, pipelines, prepared statements, COPY."""
import datetime, decimal, logging, os, sys, threading, time
import psycopg
from psycopg import sql

# Whether it warns of a pipeline that ends broken depends on what has arrived by then.
logging.getLogger("psycopg").setLevel(logging.CRITICAL)

def say(*words):
    print(*words, flush=True)

def connect(**more):
    return psycopg.connect("", autocommit=True, **more)  # everything else is in PG*

def fails(fn):
    try:
        fn()
        return "no error"
    except psycopg.Error as e:
        return (e.sqlstate or (e.diag.sqlstate if e.diag else None) or "lost") + (" hoopctl:" if str(e).startswith("hoopctl:") else "")

def ordinary():
    c = connect()
    for binary in (False, True):
        cur = c.cursor(binary=binary)
        row = cur.execute("SELECT %s::int8, %s::text, %s::numeric, %s::date, %s::bytea, %s::int[], %s::jsonb, %s::timestamptz IS NULL, true, %b::int",
                          (2**40, "ünï", decimal.Decimal("1.50"), datetime.date(2024, 2, 29), b"\0\xff", [1, None, 3], '{"a": [1]}', None, 7)).fetchone()
        say("types", "binary:" if binary else "text:", row)
    for i in range(20):  # prepared by the driver after five
        assert c.execute("SELECT id + %s FROM things WHERE id = %s", (i, 1)).fetchone() == (1 + i,)
    say("prepared:", c.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()[0] > 0)
    with c.pipeline():
        curs = [c.execute("SELECT %s::int", (i,)) for i in range(50)]
    say("pipeline:", sum(cur.fetchone()[0] for cur in curs))
    def broken():
        with c.pipeline() as p:
            c.execute("INSERT INTO things VALUES (100, 'a')")
            c.execute("SELECT 1/0")
            c.execute("INSERT INTO things VALUES (101, 'b')")
            p.sync()
    say("broken pipeline:", fails(broken), c.execute("SELECT count(*) FROM things WHERE id >= 100").fetchone())
    with c.cursor() as cur:
        cur.executemany("INSERT INTO things VALUES (%s, %s) RETURNING id", [(200 + i, str(i)) for i in range(100)], returning=True)
        say("executemany:", cur.fetchone(), cur.rowcount)
        with cur.copy("COPY things FROM STDIN") as copy:
            for i in range(1000):
                copy.write_row((1000 + i, "row\t%d" % i))
        with cur.copy("COPY things (id, name) FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int4", "text"])
            copy.write_row((5000, "binary"))
        with cur.copy("COPY (SELECT * FROM things WHERE id >= 1000 ORDER BY id) TO STDOUT") as copy:
            rows = list(copy.rows())
        say("copy:", len(rows), rows[7], rows[-1])
        def bad():
            with cur.copy("COPY things FROM STDIN") as copy:
                copy.write("x\ty\n")
        say("bad copy:", fails(bad))
        def stopped():
            with cur.copy("COPY things FROM STDIN") as copy:
                copy.write_row((9000, "never"))
                raise psycopg.errors.RaiseException("mine")
        say("stopped copy:", fails(stopped), cur.execute("SELECT count(*) FROM things WHERE id = 9000").fetchone())
    with c.transaction():
        c.execute("INSERT INTO things VALUES (300, 'tx')")
        try:
            with c.transaction():
                c.execute("INSERT INTO things VALUES (300, 'again')")
        except psycopg.errors.UniqueViolation as e:
            say("savepoint:", e.sqlstate, e.diag.constraint_name)
    c.autocommit = False
    say("failed:", fails(lambda: c.execute("SELECT 1/0")), fails(lambda: c.execute("SELECT 1")), c.info.transaction_status.name)
    c.rollback()
    with c.cursor("named") as cur:  # DECLARE and FETCH
        cur.itersize = 500
        say("cursor:", sum(r[0] for r in cur.execute("SELECT n FROM generate_series(1, 2000) n")))
    c.commit()
    c.autocommit = True
    cur = c.cursor()
    say("stream:", sum(r[0] for r in cur.stream("SELECT n, repeat('x', 50) FROM generate_series(1, 20000) n")))
    say("large:", len(c.execute("SELECT repeat('y', 5000000)").fetchone()[0]), len(c.execute("SELECT %s::bytea", (b"z" * 3000000,)).fetchone()[0]))
    c.execute("SET statement_timeout = 100")
    say("timeout:", fails(lambda: c.execute("SELECT pg_sleep(60)")))
    c.execute("RESET statement_timeout")
    say("cancel:", fails(lambda: cancelled(c, "SELECT pg_sleep(60)")), c.execute("SELECT 1").fetchone())
    heard = []
    c.add_notify_handler(lambda n: heard.append((n.channel, n.payload)))
    c.execute("LISTEN news")
    connect().execute("NOTIFY news, 'from another'")
    while not heard:
        c.execute("SELECT 1")
    say("notify:", heard)
    notices = []
    c.add_notice_handler(lambda d: notices.append(d.message_primary))
    c.execute("DO $$ BEGIN RAISE NOTICE 'hear, hear'; END $$")
    say("notice:", notices)
    total, lock = [0], threading.Lock()
    def work(n):
        with connect() as mine:
            for i in range(25):
                v = mine.execute("SELECT %s::int * %s::int", (n, i)).fetchone()[0]
                with lock:
                    total[0] += v
    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    [t.start() for t in threads]; [t.join() for t in threads]
    say("pool:", total[0])
    c.close()
    say("done")

def cancelled(c, text, when=None):
    """Runs a statement and cancels it once it runs, or once the notice of its hold has come."""
    if when is None:
        pid = c.execute("SELECT pg_backend_pid()").fetchone()[0]
        def stop():
            with connect() as other:
                while other.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND query LIKE '%%pg_sleep%%' AND state = 'active'", (pid,)).fetchone()[0] == 0:
                    time.sleep(0.02)
            c.cancel()
    else:
        def stop():
            when.wait(60)
            c.cancel()
    t = threading.Thread(target=stop)
    t.start()
    try:
        c.execute(text)
    finally:
        t.join()

def told(fn):
    """psycopg has no SQLSTATE for a connection that is gone, but the server's last words."""
    try:
        fn()
    except psycopg.OperationalError as e:
        return "57P01" if str(e).find("hoopctl: ") >= 0 and ("ended by" in str(e) or "revoked" in str(e)) else str(e)

def refused():
    c = connect()
    one = lambda: c.execute("SELECT 1").fetchone()[0]
    say("refused:", fails(lambda: c.execute("SELECT * FROM forbidden WHERE id = %s", (1,))))
    say("goes on:", one())
    c.autocommit = False
    c.execute("SELECT 1")
    say("refused in a transaction:", fails(lambda: c.execute("DELETE FROM forbidden WHERE id = 1"))[:5])
    say("in the transaction:", fails(one))
    c.rollback()
    say("goes on:", one())
    c.rollback()
    c.autocommit = True
    def batch():
        with c.pipeline() as p:
            c.execute("INSERT INTO things VALUES (100, 'a')")
            c.execute("SELECT * FROM forbidden")
            c.execute("INSERT INTO things VALUES (101, 'b')")
            p.sync()
    say("refused in a batch:", fails(batch)[:5])
    say("goes on:", c.execute("SELECT count(*) FROM things WHERE id >= 100").fetchone()[0])
    say("@approve")
    say("approved:", c.execute("UPDATE held SET n = n + 1").rowcount)
    asked = threading.Event()
    c.add_notice_handler(lambda d: asked.set())
    say("withdrawn:", fails(lambda: cancelled(c, "DELETE FROM held", asked))[:5])
    say("goes on:", one() - 1)
    c.autocommit = False
    c.execute("SELECT 1")
    say("hold over in a transaction:", fails(lambda: c.execute("DELETE FROM held"))[:5])
    c.rollback()
    say("goes on:", one() - 1)
    c.rollback()
    c.autocommit = True
    say("@end")
    say("ended:", told(lambda: c.execute("SELECT pg_sleep(60)")))
    c = connect()
    say("again:", one())
    say("@revoke")
    say("revoked:", told(lambda: c.execute("SELECT pg_sleep(60)")))
    try:
        connect()
        say("no more: connected")
    except psycopg.OperationalError:
        say("no more: refused")

{"ordinary": ordinary, "refused": refused}[os.environ["STAGE"]]()
