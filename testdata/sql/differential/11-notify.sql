-- LISTEN and NOTIFY
LISTEN news;
LISTEN "Other News";
SELECT pg_listening_channels() ORDER BY 1;
NOTIFY news;
NOTIFY news, 'with words';
SELECT pg_notify('Other News', 'ünï ' || n) FROM generate_series(1, 3) n;
BEGIN;
NOTIFY news, 'only at the commit';
SELECT 'before';
COMMIT;
SELECT 'after';
BEGIN; NOTIFY news, 'never'; ROLLBACK;
UNLISTEN news;
NOTIFY news, 'nobody hears';
UNLISTEN *;
SELECT count(*) FROM pg_listening_channels();
NOTIFY news, '';
SELECT pg_notify('', 'x');
