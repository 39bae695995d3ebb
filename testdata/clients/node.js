// node-postgres: pools, named statements, cursors, COPY streams, no Describe of what it knows.
'use strict'
const { Client, Pool } = require('pg')
const Cursor = require('pg-cursor')
const copy = require('pg-copy-streams')
const fs = require('fs')
const { pipeline } = require('stream/promises')
const { Readable } = require('stream')

const ssl = process.env.PGSSLMODE === 'verify-full' ? { ca: fs.readFileSync(process.env.PGSSLROOTCERT) } : false
const say = (...words) => console.log(words.map((w) => (typeof w === 'string' ? w : JSON.stringify(w))).join(' '))
const fails = (p) => p.then(() => 'no error', (e) => (e.code || 'lost') + (String(e.message).startsWith('hoopctl:') ? ' hoopctl:' : ''))
async function connect() {
  const c = new Client({ ssl })
  c.on('error', () => {}) // a connection that ends while nothing runs
  await c.connect()
  return c
}

async function ordinary() {
  const c = await connect()
  const values = ['1099511627776', 'ünï', '1.50', '2024-02-29', Buffer.from([0, 255]), [1, null, 3], { a: [1] }, null]
  const types = 'SELECT $1::int8 a, $2::text b, $3::numeric c, $4::date::text d, $5::bytea e, $6::int[] f, $7::jsonb g, $8::timestamptz h, true i'
  say('types:', (await c.query(types, values)).rows)
  say('array rows:', (await c.query({ text: types, values, rowMode: 'array' })).rows)
  say('binary:', (await c.query({ text: 'SELECT $1::int4 a, $2::text b, true c', values: [7, 'x'], binary: true })).rows)
  for (let i = 0; i < 20; i++) { // a named statement is described once
    const r = await c.query({ name: 'plus', text: 'SELECT id + $1 AS n FROM things WHERE id = $2', values: [i, 1] })
    if (r.rows[0].n !== 1 + i) throw new Error('a wrong row')
  }
  say('prepared:', (await c.query('SELECT name FROM pg_prepared_statements')).rows)
  await c.query('ALTER TABLE things ADD COLUMN more int')
  say('after DDL:', await fails(c.query({ name: 'plus', text: 'SELECT id + $1 AS n FROM things WHERE id = $2', values: [1, 1] })))
  await c.query('ALTER TABLE things DROP COLUMN more')
  const queued = await Promise.all([...Array(50).keys()].map((n) => c.query('SELECT $1::int AS n', [n])))
  say('queued:', queued.reduce((sum, r) => sum + r.rows[0].n, 0))
  say('several:', (await c.query('SELECT 1 AS a; SELECT 2 AS b, 3 AS c; INSERT INTO things VALUES (90, NULL)')).map((r) => [r.command, r.rowCount, r.rows]))
  await pipeline(Readable.from(Array.from({ length: 1000 }, (_, i) => `${1000 + i}\trow\\t${i}\n`)), c.query(copy.from('COPY things FROM STDIN')))
  let out = ''
  for await (const chunk of c.query(copy.to('COPY (SELECT * FROM things WHERE id >= 1000 ORDER BY id) TO STDOUT'))) out += chunk
  say('copy:', out.length, out.slice(0, 24))
  say('bad copy:', await fails(pipeline(Readable.from(['x\ty\n']), c.query(copy.from('COPY things FROM STDIN')))))
  const cursor = c.query(new Cursor('SELECT n FROM generate_series(1, $1::int) n', [2000]))
  let sum = 0
  for (;;) {
    const rows = await cursor.read(300)
    if (!rows.length) break
    sum += rows.reduce((s, r) => s + r.n, 0)
  }
  await cursor.close()
  say('cursor:', sum)
  const early = c.query(new Cursor('SELECT n FROM generate_series(1, 100000) n'))
  await early.read(10)
  await early.close()
  say('closed early:', (await c.query('SELECT 1 AS one')).rows)
  await c.query('BEGIN')
  await c.query("INSERT INTO things VALUES (300, 'tx')")
  await c.query('SAVEPOINT s')
  say('savepoint:', await fails(c.query("INSERT INTO things VALUES ($1, 'again')", [300])))
  await c.query('ROLLBACK TO s')
  await c.query('COMMIT')
  await c.query('BEGIN')
  say('failed:', await fails(c.query('SELECT 1/$1::int', [0])), await fails(c.query('SELECT 1')))
  await c.query('ROLLBACK')
  say('rows:', (await c.query('SELECT count(*)::int AS n FROM things')).rows)
  const large = await c.query("SELECT repeat('y', 5000000) AS y, $1::bytea AS z", [Buffer.alloc(3000000, 'z')])
  say('large:', large.rows[0].y.length, large.rows[0].z.length)
  say('many rows:', (await c.query("SELECT n, repeat('x', 50) x FROM generate_series(1, 50000) n")).rows.length)
  await c.query('SET statement_timeout = 100')
  say('timeout:', await fails(c.query('SELECT pg_sleep(60)')))
  await c.query('RESET statement_timeout')
  const sleeping = fails(c.query('SELECT pg_sleep(60)'))
  await running(c)
  cancel(c)
  say('cancel:', await sleeping, (await c.query('SELECT 1 AS one')).rows)
  const heard = new Promise((resolve) => c.on('notification', (n) => resolve([n.channel, n.payload])))
  await c.query('LISTEN news')
  const other = await connect()
  await other.query("NOTIFY news, 'from another'")
  await other.end()
  say('notify:', await heard)
  const notice = new Promise((resolve) => c.on('notice', (n) => resolve(n.message)))
  await c.query("DO $$ BEGIN RAISE NOTICE 'hear, hear'; END $$")
  say('notice:', await notice)
  await c.end()
  const pool = new Pool({ ssl, max: 8 })
  const all = await Promise.all(Array.from({ length: 200 }, (_, i) => pool.query('SELECT $1::int * 2 AS n', [i])))
  say('pool:', all.reduce((s, r) => s + r.rows[0].n, 0), pool.totalCount)
  await pool.end()
  say('done')
}

// running awaits that c's statement runs on the server.
async function running(c) {
  const other = await connect()
  while ((await other.query("SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(60)' AND datname = current_database()")).rowCount === 0);
  await other.end()
}

// cancel asks for what c runs to be cancelled, as libpq does.
function cancel(c) {
  const canceller = new Client({ ssl })
  canceller.on('error', () => {})
  canceller.cancel(c, c._getActiveQuery ? c._getActiveQuery() : c.activeQuery)
}

async function refused() {
  let c = await connect()
  const one = async () => (await c.query('SELECT 1 AS one')).rows[0].one
  say('refused:', await fails(c.query('SELECT * FROM forbidden WHERE id = $1', [1])))
  say('goes on:', await one())
  await c.query('BEGIN')
  say('refused in a transaction:', (await fails(c.query('DELETE FROM forbidden WHERE id = 1'))).slice(0, 5))
  say('in the transaction:', await fails(one()))
  await c.query('ROLLBACK')
  say('goes on:', await one())
  say('refused in a batch:', (await fails(c.query('INSERT INTO things VALUES (100, NULL); SELECT * FROM forbidden'))).slice(0, 5))
  say('goes on:', (await c.query('SELECT count(*)::int AS n FROM things WHERE id >= 100')).rows[0].n)
  say('@approve')
  say('approved:', (await c.query('UPDATE held SET n = n + 1')).rowCount)
  const asked = new Promise((resolve) => c.on('notice', resolve))
  const held = fails(c.query('DELETE FROM held'))
  await asked
  cancel(c)
  say('withdrawn:', (await held).slice(0, 5))
  say('goes on:', (await one()) - 1)
  await c.query('BEGIN')
  say('hold over in a transaction:', (await fails(c.query('DELETE FROM held'))).slice(0, 5))
  await c.query('ROLLBACK')
  say('goes on:', (await one()) - 1)
  say('@end')
  say('ended:', (await fails(c.query('SELECT pg_sleep(60)'))).slice(0, 5))
  c = await connect()
  say('again:', await one())
  say('@revoke')
  say('revoked:', (await fails(c.query('SELECT pg_sleep(60)'))).slice(0, 5))
  say('no more:', await connect().then(() => 'connected', () => 'refused'))
  process.exit(0)
}

({ ordinary, refused })[process.env.STAGE]().catch((e) => { console.log(e); process.exit(1) })
