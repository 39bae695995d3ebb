-- a value of every type, by text, by COPY and by binary COPY
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE types (id int PRIMARY KEY, b bool, i2 int2, i4 int4, i8 int8, f4 float4, f8 float8, n numeric, n2 numeric(20, 4), m money,
  c char(5), vc varchar(9), t text, bc "char", nm name, ba bytea, d date, tm time, tz timetz, ts timestamp, tsz timestamptz, iv interval,
  u uuid, j json, jb jsonb, jp jsonpath, x xml, i4a int[], ta text[], i4aa int[][], r4 int4range, rts tsrange, mr nummultirange,
  pt point, ln line, ls lseg, bx box, pa path, pg polygon, ci circle, ip inet, cd cidr, mac macaddr, mac8 macaddr8, bt bit(3), vb varbit,
  tv tsvector, tq tsquery, e mood, co pair, dom positive, rc regclass, ro regtype, ln2 pg_lsn, o oid, ov oidvector);
INSERT INTO types VALUES (1, true, -32768, 2147483647, -9223372036854775808, 1.5e-30, 'Infinity', 'NaN', 12345678901234.5678, '$1,234.56',
  'ab', 'héllo', E'line\nbreak\ttab\\ back', 'q', 'a_name', '\x00ff10', '2024-02-29', '23:59:59.999999', '04:05:06.789-08', 'infinity', '2001-02-03 04:05:06.7+02', '1 year 2 mons 3 days 04:05:06.7',
  'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a": [1, 2, {"b": null}]}', '{"z": 1, "a": [1, 2]}', '$.a[*] ? (@ > 1)', '<a b="c">d</a>', '{1,NULL,3}', '{a,"b c",NULL,"\"q\""}', '[0:1][2:3]={{1,2},{3,4}}', '[1,5)', '[2024-01-01,)', '{[1,2),[3,4)}',
  '(1,2)', '{1,2,3}', '[(0,0),(1,1)]', '((1,1),(0,0))', '[(0,0),(1,1)]', '((0,0),(1,1),(2,0))', '<(1,2),3>', '192.168.0.1/24', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', B'101', B'10101',
  'a:1 fat:2A cat:3', 'fat & (rat | !cat)', 'ok', '(1,"two, three")', 7, 'pg_catalog.pg_class', 'int4', '16/B374D848', 4294967295, '1 2 3');
INSERT INTO types (id) VALUES (2);
INSERT INTO types (id, t, ba, n, f8, ts, i4a, jb) VALUES (3, '', '', -0.000, '-0', '0044-03-15 BC', '{}', 'null'), (4, '🙂 ünïcode', repeat('\000', 20)::bytea, 1e100, 1e-300, '294276-12-31', '{{{1}}}', '"s"');
\x on
SELECT * FROM types ORDER BY id;
\x off
SELECT * FROM types ORDER BY id;
COPY types TO STDOUT;
COPY types TO STDOUT (FORMAT csv, HEADER, FORCE_QUOTE *, NULL 'nil');
COPY (SELECT * FROM types ORDER BY id) TO STDOUT (FORMAT text, DELIMITER '|', NULL '');
CREATE TABLE again (LIKE types);
\copy types TO 'types.bin' (FORMAT binary)
\copy again FROM 'types.bin' (FORMAT binary)
SELECT count(*), count(*) FILTER (WHERE a.* IS NOT DISTINCT FROM t.*) FROM again a JOIN types t USING (id);
\copy (SELECT id, t, ba, n, d, i4a FROM types ORDER BY id) TO STDOUT (FORMAT csv)
SELECT pg_typeof(i8 + i4), pg_typeof(n * 2), co, (co).b, e > 'sad', r4 * '[2,9)', i4a || 4, jb -> 'a', t COLLATE "C", tv @@ tq FROM types WHERE id = 1;
SET bytea_output = escape;
SELECT ba FROM types ORDER BY id;
SET datestyle = 'German, DMY'; SET intervalstyle = 'iso_8601'; SET timezone = 'Asia/Kolkata'; SET extra_float_digits = -5; SET xmloption = document;
SELECT d, ts, tsz, iv, f8, f4, tz FROM types ORDER BY id;
RESET ALL;
SHOW datestyle;
SELECT row(1, NULL, 'x', row(2)), ARRAY[row(1, 2), row(3, NULL)], '{}'::int[], int4range(3, 3);
SELECT 'x'::xml, xmlelement(name a, xmlattributes(1 AS b), 'c'), json_build_object('a', 1), to_jsonb(pair.*) FROM (SELECT (1, 'x')::pair AS pair) s, LATERAL (SELECT (pair).*) pair;
SELECT bool 't', date 'epoch', interval '1-2', time with time zone '10:00+1', 1::bit(4), 3.7::int, '12'::"char", -5 % 3, 2 ^ 0.5, |/ 25, 5 # 3, ~1;
