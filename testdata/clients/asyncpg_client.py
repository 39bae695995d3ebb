"""asyncpg: binary everywhere, a statement cache, no simple query but for scripts."""
import asyncio, datetime, decimal, os, ssl
import asyncpg

def say(*words):
    print(*words, flush=True)

def tls():
    if os.environ["PGSSLMODE"] == "disable":
        return False
    return ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"])

async def connect():
    return await asyncpg.connect(ssl=tls())

async def fails(awaitable):
    try:
        await awaitable
        return "no error"
    except asyncpg.ConnectionDoesNotExistError:
        return "lost"  # it keeps no last words
    except asyncpg.PostgresError as e:
        return e.sqlstate + (" hoopctl:" if str(e).startswith("hoopctl:") else "")
    except asyncio.TimeoutError:
        return "timeout"
    except (ConnectionError, asyncpg.InterfaceError) as e:
        return "lost"

async def ordinary():
    c = await connect()
    say("types:", await c.fetchrow(
        "SELECT $1::int8 a, $2::text b, $3::numeric c, $4::date d, $5::bytea e, $6::int[] f, $7::jsonb g, $8::timestamptz h, true i, $9::interval j, '[1,5)'::int4range k, ROW(1, 'x') l, '{{a,b}}'::text[] m",
        2**40, "ünï", decimal.Decimal("1.50"), datetime.date(2024, 2, 29), b"\0\xff", [1, None, 3], '{"a": [1]}', None, datetime.timedelta(days=3, seconds=5)))
    await c.execute("CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE pair AS (a int, b mood)")
    say("types that it asks for:", await c.fetchval("SELECT $1::pair", (1, "ok")), await c.fetchval("SELECT $1::mood[]", ["ok", "sad"]))
    await c.execute("DROP TYPE pair; DROP TYPE mood")
    for i in range(20):
        assert await c.fetchval("SELECT id + $1 FROM things WHERE id = $2", i, 1) == 1 + i
    await c.execute("ALTER TABLE things ADD COLUMN more int")
    s = await c.prepare("SELECT * FROM things WHERE id = $1")
    say("prepared:", await s.fetchrow(1), [a.name for a in s.get_attributes()])
    await c.execute("ALTER TABLE things DROP COLUMN more")
    say("after DDL:", await fails(s.fetchrow(1)), await c.fetchrow("SELECT * FROM things WHERE id = $1", 1))
    await c.executemany("INSERT INTO things VALUES ($1, $2)", [(200 + i, str(i)) for i in range(500)])
    say("executemany:", await c.fetchval("SELECT count(*) FROM things WHERE id >= 200"))
    say("broken batch:", await fails(c.executemany("INSERT INTO things VALUES ($1, $2)", [(800, "a"), (200, "b"), (801, "c")])), await c.fetchval("SELECT count(*) FROM things WHERE id >= 800"))
    say("copy:", await c.copy_records_to_table("things", records=[(1000 + i, "row\t%d" % i) for i in range(1000)]))
    out = []
    async def take(b):
        out.append(b)
    say("copy out:", await c.copy_from_query("SELECT * FROM things WHERE id >= 1000 ORDER BY id", output=take, format="binary"), sum(map(len, out)))
    say("bad copy:", await fails(c.copy_to_table("things", source=chunks([b"x\ty\n"]))))
    async with c.transaction():
        say("cursor:", sum([r[0] async for r in c.cursor("SELECT n FROM generate_series(1, 2000) n", prefetch=300)]))
        cursor = await c.cursor("SELECT n FROM generate_series(1, 10) n")
        say("portal:", await cursor.fetch(3), await cursor.forward(2), await cursor.fetchrow())
        try:
            async with c.transaction():
                await c.execute("INSERT INTO things VALUES (1, 'again')")
        except asyncpg.UniqueViolationError as e:
            say("savepoint:", e.sqlstate, e.constraint_name)
    t = c.transaction(isolation="serializable", readonly=True)
    await t.start()
    say("failed:", await fails(c.execute("INSERT INTO things VALUES (901)")), await fails(c.fetchval("SELECT 1")))
    await t.rollback()
    say("large:", len(await c.fetchval("SELECT repeat('y', 5000000)")), len(await c.fetchval("SELECT $1::bytea", b"z" * 3000000)))
    say("many rows:", len(await c.fetch("SELECT n, repeat('x', 50) FROM generate_series(1, 50000) n")))
    say("timeout:", await fails(c.fetch("SELECT pg_sleep(60)", timeout=0.2)), await c.fetchval("SELECT 1"))
    task = asyncio.create_task(c.fetch("SELECT pg_sleep(60)"))
    other = await connect()
    while not await other.fetchval("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(60)'"):
        pass
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        say("cancel:", await c.fetchval("SELECT 1"))
    heard = asyncio.get_running_loop().create_future()
    await c.add_listener("news", lambda *a: heard.done() or heard.set_result(a[2:]))
    await other.execute("NOTIFY news, 'from another'")
    say("notify:", await heard)
    notices = []
    c.add_log_listener(lambda _, n: notices.append(n.message))
    await c.execute("DO $$ BEGIN RAISE NOTICE 'hear, hear'; END $$")
    await asyncio.sleep(0)
    say("notice:", notices)
    await other.close()
    await c.reset()
    await c.close()
    async with asyncpg.create_pool(ssl=tls(), min_size=4, max_size=8) as pool:  # resets each connection that comes back
        async def work(i):
            async with pool.acquire() as mine:
                async with mine.transaction():
                    return await mine.fetchval("SELECT $1::int * 2", i)
        say("pool:", sum(await asyncio.gather(*[work(i) for i in range(200)])))
    say("done")

async def chunks(all):
    for b in all:
        yield b

async def refused():
    c = await connect()
    one = lambda: c.fetchval("SELECT 1")
    say("refused:", await fails(c.fetch("SELECT * FROM forbidden WHERE id = $1", 1)))
    say("goes on:", await one())
    t = c.transaction()
    await t.start()
    say("refused in a transaction:", (await fails(c.execute("DELETE FROM forbidden WHERE id = 1")))[:5])
    say("in the transaction:", await fails(one()))
    await t.rollback()
    say("goes on:", await one())
    say("refused in a batch:", (await fails(c.execute("INSERT INTO things VALUES (100, NULL); SELECT * FROM forbidden")))[:5])
    say("goes on:", await c.fetchval("SELECT count(*) FROM things WHERE id >= 100"))
    say("@approve")
    say("approved:", int((await c.execute("UPDATE held SET n = n + 1")).split()[1]))
    asked = asyncio.Event()
    c.add_log_listener(lambda *_: asked.set())
    task = asyncio.create_task(c.execute("DELETE FROM held"))
    await asked.wait()
    task.cancel()  # asyncpg asks for the cancellation, and waits for the answer
    try:
        await task
        say("withdrawn: no error")
    except asyncio.CancelledError:
        say("withdrawn: 57014")
    say("goes on:", await one() - 1)
    t = c.transaction()
    await t.start()
    say("hold over in a transaction:", (await fails(c.execute("DELETE FROM held")))[:5])
    say("goes on:", await one() - 1)
    say("@end")
    say("ended:", (await fails(c.execute("SELECT pg_sleep(60)")))[:5])
    c = await connect()
    say("again:", await one())
    say("@revoke")
    say("revoked:", (await fails(c.execute("SELECT pg_sleep(60)")))[:5])
    try:
        await connect()
        say("no more: connected")
    except (asyncpg.PostgresError, OSError):
        say("no more: refused")

asyncio.run({"ordinary": ordinary, "refused": refused}[os.environ["STAGE"]]())
