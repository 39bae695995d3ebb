-- large objects, by functions and by psql's own commands, which use the function call's SQL form
SELECT lo_create(424242);
BEGIN;
SELECT lowrite(lo_open(424242, 131072), 'bytes of a large object');
SELECT lo_put(424242, 100, '\x00ff');
COMMIT;
SELECT lo_get(424242, 0, 30), length(lo_get(424242));
SELECT loid = 424242, pageno, length(data) FROM pg_largeobject ORDER BY 1, 2;
BEGIN;
SELECT lo_lseek(lo_open(424242, 262144), 6, 0), loread(0, 8), lo_tell(0), lo_truncate(0, 10);
SELECT lo_close(0);
ROLLBACK;
SELECT lo_from_bytea(424243, 'x');
\lo_list
COMMENT ON LARGE OBJECT 424243 IS 'x';
SELECT lo_unlink(424242), lo_unlink(424243);
SELECT lo_unlink(424242);
