-- psql's own commands that end in statements
SELECT 1 AS one, 'two' AS two \gset
\echo :one :two :'two' :"two"
SELECT 3 AS x \gset pre_
\echo :pre_x
SELECT 1 WHERE false \gset
SELECT n FROM generate_series(1, 2) n \gset
SELECT format('SELECT %s AS made', n) FROM generate_series(1, 3) n \gexec
SELECT 'SELECT 1/0' UNION ALL SELECT 'SELECT ''goes on''' \gexec
SELECT NULL::text, 'CREATE TABLE gx (a int)', 'DROP TABLE gx' \gexec
SELECT 1 AS a, 'x' AS b, now() AS c, ARRAY[1] AS d, 1.5::numeric(5,2) AS e \gdesc
SELECT nothere \gdesc
CREATE TABLE gd (a int) \gdesc
SELECT 1 AS wide, 2 AS wider \gx
SELECT y, x, v FROM (VALUES ('r1', 'c1', 1), ('r1', 'c2', 2), ('r2', 'c1', 3)) t(y, x, v) \crosstabview
SELECT y, x, v FROM (VALUES ('r1', 'c1', 1), ('r1', 'c1', 2)) t(y, x, v) \crosstabview y x v
CREATE SEQUENCE w_seq;
SELECT 10 / (4 - nextval('w_seq')) AS countdown \watch 0.01
\if :{?one}
SELECT 'in if' AS x;
\else
SELECT 'in else' AS x;
\endif
SELECT true AS yes \gset
\if :yes \echo yes \elif false \echo no \endif
\set q 'SELECT 5 AS five;'
:q
\set name pg_class
SELECT count(*) > 0 FROM :"name" WHERE relname = :'name';
\set S on
\set SINGLELINE on
SELECT 'a single line' AS x
SELECT 'another' AS x
\set SINGLELINE off
SELECT 'printed' AS x \g
SELECT 'to a file' AS x \g out.txt
\! cat out.txt
SELECT 'to a pipe' AS x \g |cat
SELECT 'aligned' AS x \g (format=unaligned tuples_only=on)
\p
\r
\o other.txt
SELECT 'into other.txt' AS x;
\o
\! cat other.txt
\t on
SELECT 'tuples only' AS x;
\t off
\pset null '(nil)'
SELECT NULL AS x;
\pset format html
SELECT '<b>' AS x;
\pset format csv
SELECT 'a,b' AS x, 2 AS y;
\pset format latex
SELECT 'a_b' AS x;
\pset format asciidoc
SELECT 1 AS x;
\pset format aligned
\pset border 2
\pset linestyle unicode
SELECT 1 AS x, E'two\nlines' AS y;
\pset border 1
\pset linestyle ascii
\pset null ''
\timing off
\echo :SERVER_VERSION_NUM :ENCODING :DBNAME :ROW_COUNT :SQLSTATE
\set ON_ERROR_STOP off
\echo :AUTOCOMMIT
\dconfig work_mem
SELECT current_database(), current_user, session_user, inet_client_addr() IS NULL, pg_backend_pid() > 0 \gx
\password_nothere
\copy
\bogus
