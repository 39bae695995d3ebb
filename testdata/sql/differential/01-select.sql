-- what reads, of every shape
SELECT 1;
SELECT;
SELECT NULL, '', 'x' AS "column with spaces", 1 AS a, 2 AS a;
VALUES (1, 'one'), (2, NULL) ORDER BY 1 DESC;
TABLE pg_catalog.pg_am LIMIT 0;
SELECT n, n * n FROM generate_series(1, 40) n;
SELECT string_agg(n::text, ',' ORDER BY n DESC) FROM generate_series(1, 5) n;
WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 7) SELECT array_agg(n) FROM r;
SELECT a, b, sum(c) FROM (VALUES (1, 'x', 10), (1, 'y', 20), (2, 'x', 30)) v(a, b, c) GROUP BY GROUPING SETS ((a, b), (a), ()) ORDER BY a NULLS LAST, b NULLS LAST;
SELECT n, rank() OVER w, lag(n) OVER w, ntile(2) OVER w FROM generate_series(1, 4) n WINDOW w AS (ORDER BY n);
SELECT * FROM (VALUES (1), (2)) a(x) CROSS JOIN LATERAL (SELECT x * 10 AS y) b LEFT JOIN (VALUES (20)) c(z) ON y = z;
SELECT 1 UNION SELECT 1 UNION ALL SELECT 2 EXCEPT SELECT 3 ORDER BY 1;
SELECT count(*) FILTER (WHERE n % 2 = 0), percentile_cont(0.5) WITHIN GROUP (ORDER BY n) FROM generate_series(1, 9) n;
SELECT DISTINCT ON (n % 3) n % 3, n FROM generate_series(1, 9) n ORDER BY n % 3, n DESC;
SELECT 1 AS one \; SELECT 2 AS two \; SELECT 3 AS three;
SELECT 1; SELECT 2; SELECT 3;
;
-- only a comment;
/* a comment /* in a comment */ ; */ SELECT 'after';
SELECT $$dollar ; quoted$$, $a$with $$ inside$a$, E'esc\'aped\n', U&'d\0061t\+000061', U&'d!0061t' UESCAPE '!', 'two'
' lines', B'1010', X'1F';
SELECT repeat('wide ', 2000) AS wide;
SELECT * FROM generate_series(1, 3) AS t(n) ORDER BY n OFFSET 1 FETCH FIRST 1 ROW WITH TIES;
