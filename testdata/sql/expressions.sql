-- Expressions: what a value derives from, and which functions run.
SELECT ssn || '', concat('x', ssn), concat_ws('-', id, ssn), format('%s', ssn) FROM patients WHERE id = 1;
--> SELECT read; tables patients; reads patients.id patients.ssn; tests patients.id; calls concat concat_ws format
SELECT ssn::varchar(20), CAST(ssn AS char(11)), ssn::"char" FROM patients;
--> SELECT read; tables patients; reads patients.ssn
SELECT 'patients'::regclass, 'now()'::regprocedure;
--> SELECT read; literal
SELECT id::text FROM patients;
--> SELECT read; tables patients; reads patients.id
SELECT CASE WHEN ssn LIKE '1%' THEN 'a' ELSE 'b' END FROM patients;
--> SELECT read; tables patients; reads patients.ssn; tests patients.ssn
SELECT CASE id WHEN 1 THEN name ELSE 'x' END FROM patients;
--> SELECT read; tables patients; reads patients.id patients.name; tests patients.id
SELECT COALESCE(ssn, name), NULLIF(ssn, zip), GREATEST(id, 1), LEAST(id, 2) FROM patients;
--> SELECT read; tables patients; reads patients.id patients.name patients.ssn patients.zip
SELECT ssn IS NULL, ssn IS NOT NULL, ssn IS DISTINCT FROM name FROM patients;
--> SELECT read; tables patients; reads patients.name patients.ssn
SELECT (id > 3) IS TRUE FROM patients;
--> SELECT read; tables patients; reads patients.id
SELECT id BETWEEN 1 AND 3, id NOT BETWEEN SYMMETRIC 3 AND 1 FROM patients;
--> SELECT read; tables patients; reads patients.id
SELECT name LIKE 'A%', name ILIKE 'a%' ESCAPE '!', name SIMILAR TO 'A%', name ~ '^A' FROM patients;
--> SELECT read; tables patients; reads patients.name; calls like_escape similar_to_escape
SELECT id IN (1, 2, 3), id NOT IN (4, 5), id = ANY ('{1,2}'), id <> ALL (ARRAY[1, 2]) FROM patients;
--> SELECT read; tables patients; reads patients.id
SELECT ROW(id, ssn), (id, name) FROM patients;
--> SELECT read; tables patients; reads patients.id patients.name patients.ssn
SELECT ROW(p.*) FROM patients p;
--> SELECT read; tables patients; reads patients.*
SELECT ARRAY[ssn, name], ARRAY[[1, 2], [3, 4]] FROM patients;
--> SELECT read; tables patients; reads patients.name patients.ssn
SELECT (ARRAY[ssn])[1], (string_to_array(ssn, '-'))[1:2] FROM patients;
--> SELECT read; tables patients; reads patients.ssn; calls string_to_array
SELECT row_to_json(p), to_jsonb(p), p::text FROM patients p;
--> SELECT read; tables patients; reads patients.* patients.p; calls row_to_json to_jsonb
SELECT json_agg(p), jsonb_object_agg(id, ssn), array_agg(ssn), xmlagg(xmlelement(name a, ssn)) FROM patients p;
--> SELECT read; tables patients; reads patients.* patients.id patients.p patients.ssn; calls array_agg json_agg jsonb_object_agg xmlagg; folds
SELECT json_build_object('a', ssn), jsonb_build_array(ssn, id) FROM patients;
--> SELECT read; tables patients; reads patients.id patients.ssn; calls json_build_object jsonb_build_array
SELECT to_jsonb(p) -> 'ssn', to_jsonb(p) ->> 'ssn', to_jsonb(p) #>> '{ssn}', to_jsonb(p) @> '{"id": 1}' FROM patients p;
--> SELECT read; tables patients; reads patients.* patients.p; calls to_jsonb
SELECT xmlelement(name x, xmlattributes(ssn AS s), name), xmlforest(ssn, name AS n), xmlconcat('<a/>', '<b/>') FROM patients;
--> SELECT read; tables patients; reads patients.name patients.ssn
SELECT xmlparse(DOCUMENT '<a/>'), xmlserialize(CONTENT '<a/>' AS text), xmlpi(name a), '<a/>' IS DOCUMENT, xmlroot('<a/>', version '1.0');
--> SELECT read
SELECT substr(ssn, 1, 3), substring(ssn FROM 1 FOR 3), overlay(ssn PLACING 'x' FROM 1), position('1' IN ssn), trim(BOTH ' ' FROM ssn) FROM patients;
--> SELECT read; tables patients; reads patients.ssn; calls btrim overlay position substr substring
SELECT extract(year FROM dob), date_trunc('year', dob), age(dob), dob AT TIME ZONE 'UTC', dob + interval '1 day' FROM patients;
--> SELECT read; tables patients; reads patients.dob; calls age date_trunc extract timezone
SELECT md5(ssn), sha256(ssn::bytea), encode(ssn::bytea, 'hex'), reverse(ssn), translate(ssn, '0', 'o') FROM patients;
--> SELECT read; tables patients; reads patients.ssn; calls encode md5 reverse sha256 translate
SELECT lower(name COLLATE "C") FROM patients;
--> SELECT read; tables patients; reads patients.name; calls lower
SELECT current_date, current_timestamp(3), localtime, current_user, session_user, current_catalog, current_schema;
--> SELECT read
SELECT now(), clock_timestamp(), random(), gen_random_uuid(), version(), pg_backend_pid();
--> SELECT read; calls clock_timestamp gen_random_uuid now pg_backend_pid random version
SELECT pg_sleep(0);
--> SELECT read; calls pg_sleep
SELECT nextval('s'), currval('s');
--> SELECT write; calls currval nextval
SELECT setval('s', 5);
--> SELECT admin; calls setval; literal
SELECT my_function(id) FROM patients;
--> SELECT write; tables patients; reads patients.id; calls my_function; folds; literal
SELECT app.my_function(1);
--> SELECT write; calls app.my_function; folds; literal
SELECT id FROM patients WHERE my_function(ssn);
--> SELECT write; tables patients; reads patients.id patients.ssn; tests patients.ssn; calls my_function; folds; literal
SELECT * FROM my_report(1);
--> SELECT write; calls my_report; folds; literal
SELECT pg_catalog.lower(name) FROM patients;
--> SELECT read; tables patients; reads patients.name; calls lower
SELECT pg_catalog.not_a_function();
--> SELECT admin; calls not_a_function; literal
SELECT lower(string := 'X');
--> SELECT read; calls lower
SELECT concat(VARIADIC ARRAY['a', ssn]) FROM patients;
--> SELECT read; tables patients; reads patients.ssn; calls concat
SELECT 1 OPERATOR(pg_catalog.+) 2;
--> SELECT read
SELECT 1 OPERATOR(app.+) 2;
--> SELECT write; calls app.+; literal
SELECT id === 3 FROM patients;
--> SELECT write; tables patients; reads patients.id; calls ===; literal
SELECT -id, +id, @ id, id!=3 FROM patients;
--> SELECT read; tables patients; reads patients.id
SELECT B'101', X'1F', 1.5e3, .5, E'\x41', U&'\0041', U&'!0041' UESCAPE '!', N'a', $$dollar$$, $tag$it's$tag$;
--> SELECT read
SELECT 'a'
  'b';
--> SELECT read
SELECT $1::int, $2;
--> SELECT read
SELECT DATE '2020-01-01', INTERVAL '1' DAY, TIMESTAMP WITH TIME ZONE '2020-01-01';
--> SELECT read
SELECT dob - '2000-01-01', (dob, interval '1 day') OVERLAPS (dob, dob) FROM patients;
--> SELECT read; tables patients; reads patients.dob; calls overlaps
SELECT num_nulls(ssn, name), pg_typeof(ssn), pg_column_size(ssn) FROM patients;
--> SELECT read; tables patients; reads patients.name patients.ssn; calls num_nulls pg_column_size pg_typeof
SELECT name(p) FROM patients p;
--> SELECT read; tables patients; reads patients.* patients.p; calls name
SELECT p.zipcode FROM patients p;
--> SELECT read; tables patients; reads patients.zipcode
SELECT unnest(histogram_bounds::text::text[]) FROM pg_stats WHERE tablename = 'patients';
--> SELECT read; tables pg_stats; reads pg_catalog.pg_stats.histogram_bounds pg_catalog.pg_stats.tablename; tests pg_catalog.pg_stats.tablename; calls unnest
SELECT jsonb_path_query(to_jsonb(p), '$.ssn') FROM patients p;
--> SELECT read; tables patients; reads patients.* patients.p; calls jsonb_path_query to_jsonb
SELECT setseed(0.5), to_regclass('patients');
--> SELECT read; calls setseed to_regclass; literal
SELECT current_setting('work_mem'), current_setting('a.b', true);
--> SELECT read; calls current_setting; literal
SELECT has_table_privilege('patients', 'SELECT'), pg_get_viewdef('v'::regclass), obj_description('patients'::regclass);
--> SELECT read; calls has_table_privilege obj_description pg_get_viewdef; literal
SELECT pg_total_relation_size('patients'), pg_size_pretty(pg_database_size('postgres'));
--> SELECT read; calls pg_database_size pg_size_pretty pg_total_relation_size; literal
SELECT 1 WHERE 'a' = 'a' AND true;
--> SELECT read
SELECT id AS "delete", name AS update, zip AS into_ FROM patients;
--> SELECT read; tables patients; reads patients.id patients.name patients.zip
SELECT (update) FROM (SELECT 1 AS update) s;
--> SELECT read
SELECT s.select FROM (SELECT 1 AS "select") s;
--> SELECT read
