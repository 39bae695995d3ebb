-- what is long, wide, deep or empty
SELECT md5(string_agg(md5(n::text), '' ORDER BY n)), count(*) FROM generate_series(1, 20000) n;
SELECT n, md5(n::text) FROM generate_series(1, 3000) n;
SELECT length(repeat('x', 30000000)), repeat('y', 1000000) AS a_million;
SELECT n AS a, n AS b, n AS c, n AS d, repeat('z', n * 100) FROM generate_series(0, 100) n;
SELECT FROM generate_series(1, 3);
CREATE TABLE no_columns (); INSERT INTO no_columns DEFAULT VALUES; SELECT * FROM no_columns; TABLE no_columns;
SELECT 'CREATE TABLE wide (' || string_agg('c' || n || ' int DEFAULT ' || n, ', ' ORDER BY n) || ')' FROM generate_series(1, 600) n \gexec
INSERT INTO wide DEFAULT VALUES;
\pset format unaligned
SELECT * FROM wide;
\pset format aligned
SELECT 'SELECT ' || string_agg(n::text, ' + ' ORDER BY n) || ' AS total' FROM generate_series(1, 300) n \gexec
SELECT array_agg(n) FROM generate_series(1, 2000) n;
SELECT 'SELECT ' || string_agg(quote_literal(repeat('q', 500)), ', ') FROM generate_series(1, 100) \gexec
