"""psycopg2: the simple protocol, values spliced by the client, libpq's COPY."""
import io, os, select, threading, time
import psycopg2, psycopg2.extensions, psycopg2.extras, psycopg2.pool

def say(*words):
    print(*words, flush=True)

def connect():
    c = psycopg2.connect("")
    c.autocommit = True
    return c

def fails(fn):
    try:
        fn()
        return "no error"
    except psycopg2.Error as e:
        return (e.pgcode or "lost") + (" hoopctl:" if str(e).startswith("hoopctl:") else "")

def ask(c, text, args=None):
    with c.cursor() as cur:
        cur.execute(text, args)
        return cur.fetchall() if cur.description else cur.rowcount

def ordinary():
    c = connect()
    say("types:", ask(c, "SELECT %s::int8, %s, 1.50, date '2024-02-29', %s, ARRAY[1, NULL, 3], '{\"a\": [1]}'::jsonb, NULL, true, interval '3 days 5 s'",
        (2**40, "ünï it's \\", psycopg2.Binary(b"\0\xff")))[0][:4])
    with c.cursor() as cur:
        psycopg2.extras.execute_values(cur, "INSERT INTO things VALUES %s", [(200 + i, str(i)) for i in range(500)])
        psycopg2.extras.execute_batch(cur, "UPDATE things SET name = %s WHERE id = %s", [("n%d" % i, 200 + i) for i in range(500)])
        say("batch:", cur.rowcount)
        cur.copy_expert("COPY things FROM STDIN", io.StringIO("".join("%d\trow\\t%d\n" % (1000 + i, i) for i in range(1000))))
        out = io.StringIO()
        cur.copy_expert("COPY (SELECT * FROM things WHERE id >= 1000 ORDER BY id) TO STDOUT (FORMAT csv)", out)
        say("copy:", cur.rowcount, len(out.getvalue()))
        say("bad copy:", fails(lambda: cur.copy_expert("COPY things FROM STDIN", io.StringIO("x\ty\n"))))
        binary = io.BytesIO()
        cur.copy_expert("COPY things TO STDOUT (FORMAT binary)", binary)
        say("binary copy:", len(binary.getvalue()))
    c.autocommit = False
    with c, c.cursor("named") as cur:  # DECLARE and FETCH
        cur.itersize = 300
        cur.execute("SELECT n FROM generate_series(1, 2000) n")
        say("cursor:", sum(r[0] for r in cur))
    say("failed:", fails(lambda: ask(c, "SELECT 1/0")), fails(lambda: ask(c, "SELECT 1")), c.get_transaction_status())
    c.rollback()
    c.autocommit = True
    say("savepoint:", fails(lambda: ask(c, "BEGIN; SAVEPOINT s; INSERT INTO things VALUES (1, 'x')")))
    ask(c, "ROLLBACK TO s"); ask(c, "COMMIT")
    say("two phases:", fails(two_phases))  # 55000 where max_prepared_transactions is 0
    say("large:", len(ask(c, "SELECT repeat('y', 5000000)")[0][0]), len(bytes(ask(c, "SELECT %s::bytea", (psycopg2.Binary(b"z" * 100000),))[0][0])))
    ask(c, "SET statement_timeout = 100")
    say("timeout:", fails(lambda: ask(c, "SELECT pg_sleep(60)")))
    ask(c, "RESET statement_timeout")
    t = threading.Thread(target=stop_sleep, args=(c,))
    t.start()
    say("cancel:", fails(lambda: ask(c, "SELECT pg_sleep(60)")))
    t.join()
    ask(c, "LISTEN news")
    other = connect()
    ask(other, "NOTIFY news, 'from another'")
    while not c.notifies:
        select.select([c], [], [], 60)
        c.poll()
    say("notify:", c.notifies[0].channel, c.notifies[0].payload)
    ask(c, "DO $$ BEGIN RAISE NOTICE 'hear, hear'; END $$")
    say("notice:", c.notices[-1].strip())
    pool = psycopg2.pool.ThreadedConnectionPool(2, 8, "")
    sums = []
    def work(n):
        mine = pool.getconn()
        sums.append(sum(ask(mine, "SELECT %s * %s", (n, i))[0][0] for i in range(25)))
        pool.putconn(mine)
    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    [t.start() for t in threads]; [t.join() for t in threads]
    pool.closeall()
    say("pool:", sum(sums))
    say("done")

def two_phases():
    c = psycopg2.connect("")
    x = c.xid(1, "drivers", "b")
    c.tpc_begin(x)
    ask(c, "INSERT INTO things VALUES (60000, 'tpc')")
    c.tpc_prepare()
    c.tpc_commit()
    return ask(c, "SELECT name FROM things WHERE id = 60000")

def stop_sleep(c):
    other = connect()
    while not ask(other, "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(60)'"):
        time.sleep(0.02)
    c.cancel()

def refused():
    c = connect()
    one = lambda: ask(c, "SELECT 1")[0][0]
    say("refused:", fails(lambda: ask(c, "SELECT * FROM forbidden WHERE id = %s", (1,))))
    say("goes on:", one())
    c.autocommit = False
    say("refused in a transaction:", fails(lambda: ask(c, "DELETE FROM forbidden WHERE id = 1"))[:5])
    say("in the transaction:", fails(one))
    c.rollback()
    say("goes on:", one())
    c.rollback()
    c.autocommit = True
    say("refused in a batch:", fails(lambda: ask(c, "INSERT INTO things VALUES (100, NULL); SELECT * FROM forbidden"))[:5])
    say("goes on:", ask(c, "SELECT count(*) FROM things WHERE id >= 100")[0][0])
    say("@approve")
    say("approved:", ask(c, "UPDATE held SET n = n + 1"))
    del c.notices[:]
    held = psycopg2.connect("", async_=1)  # it lets us see the notice while the statement waits
    wait(held)
    cur = held.cursor()
    cur.execute("DELETE FROM held")
    def withdrawn():
        while not held.notices:
            select.select([held], [], [], 60)
            held.poll()
        stop = threading.Thread(target=held.cancel)
        stop.start()
        stop.join()
        wait(held)
    say("withdrawn:", fails(withdrawn)[:5])
    cur.execute("SELECT 1")
    wait(held)
    say("goes on:", cur.fetchone()[0] - 1)
    held.close()
    c.autocommit = False
    say("hold over in a transaction:", fails(lambda: ask(c, "DELETE FROM held"))[:5])
    c.rollback()
    say("goes on:", one() - 1)
    c.rollback()
    c.autocommit = True
    say("@end")
    say("ended:", fails(lambda: ask(c, "SELECT pg_sleep(60)")))
    c = connect()
    say("again:", one())
    say("@revoke")
    say("revoked:", fails(lambda: ask(c, "SELECT pg_sleep(60)")))
    try:
        connect()
        say("no more: connected")
    except psycopg2.OperationalError:
        say("no more: refused")

def wait(c):
    while True:
        state = c.poll()
        if state == psycopg2.extensions.POLL_OK:
            return
        select.select([c] if state == psycopg2.extensions.POLL_READ else [], [c] if state == psycopg2.extensions.POLL_WRITE else [], [], 60)

{"ordinary": ordinary, "refused": refused}[os.environ["STAGE"]]()
