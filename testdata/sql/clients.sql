-- What psql, drivers, ORMs and poolers send on their own: it must not need more than read.
SELECT n.nspname as "Schema", c.relname as "Name", CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' END as "Type", pg_catalog.pg_get_userbyid(c.relowner) as "Owner" FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r','p','v','m','S','f','') AND n.nspname <> 'pg_catalog' AND n.nspname !~ '^pg_toast' AND pg_catalog.pg_table_is_visible(c.oid) ORDER BY 1,2;
--> SELECT read; tables pg_class pg_namespace; reads pg_catalog.pg_class.oid pg_catalog.pg_class.relkind pg_catalog.pg_class.relname pg_catalog.pg_class.relnamespace pg_catalog.pg_class.relowner pg_catalog.pg_namespace.nspname pg_catalog.pg_namespace.oid; tests pg_catalog.pg_class.oid pg_catalog.pg_class.relkind pg_catalog.pg_class.relname pg_catalog.pg_class.relnamespace pg_catalog.pg_namespace.nspname pg_catalog.pg_namespace.oid; calls pg_get_userbyid pg_table_is_visible; literal
SELECT c.oid, n.nspname, c.relname FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relname OPERATOR(pg_catalog.~) '^(patients)$' COLLATE pg_catalog.default AND pg_catalog.pg_table_is_visible(c.oid) ORDER BY 2, 3;
--> SELECT read; tables pg_class pg_namespace; reads pg_catalog.pg_class.oid pg_catalog.pg_class.relname pg_catalog.pg_class.relnamespace pg_catalog.pg_namespace.nspname pg_catalog.pg_namespace.oid; tests pg_catalog.pg_class.oid pg_catalog.pg_class.relname pg_catalog.pg_class.relnamespace pg_catalog.pg_namespace.nspname pg_catalog.pg_namespace.oid; calls pg_table_is_visible; literal
SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), (SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid, true) FROM pg_catalog.pg_attrdef d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.atthasdef), a.attnotnull FROM pg_catalog.pg_attribute a WHERE a.attrelid = '16388' AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum;
--> SELECT read; tables pg_attrdef pg_attribute; reads pg_catalog.pg_attrdef.adbin pg_catalog.pg_attrdef.adnum pg_catalog.pg_attrdef.adrelid pg_catalog.pg_attribute.atthasdef pg_catalog.pg_attribute.attisdropped pg_catalog.pg_attribute.attname pg_catalog.pg_attribute.attnotnull pg_catalog.pg_attribute.attnum pg_catalog.pg_attribute.attrelid pg_catalog.pg_attribute.atttypid pg_catalog.pg_attribute.atttypmod; tests pg_catalog.pg_attrdef.adnum pg_catalog.pg_attrdef.adrelid pg_catalog.pg_attribute.atthasdef pg_catalog.pg_attribute.attisdropped pg_catalog.pg_attribute.attnum pg_catalog.pg_attribute.attrelid; calls format_type pg_get_expr; literal
SELECT c2.relname, i.indisprimary, pg_catalog.pg_get_indexdef(i.indexrelid, 0, true), pg_catalog.pg_get_constraintdef(con.oid, true) FROM pg_catalog.pg_class c, pg_catalog.pg_class c2, pg_catalog.pg_index i LEFT JOIN pg_catalog.pg_constraint con ON (conrelid = i.indrelid AND conindid = i.indexrelid AND contype IN ('p','u','x')) WHERE c.oid = '16388' AND c.oid = i.indrelid AND i.indexrelid = c2.oid ORDER BY i.indisprimary DESC, c2.relname;
--> SELECT read; tables pg_class pg_constraint pg_index; reads pg_catalog.pg_class.conindid pg_catalog.pg_class.conrelid pg_catalog.pg_class.contype pg_catalog.pg_class.oid pg_catalog.pg_class.relname pg_catalog.pg_constraint.conindid pg_catalog.pg_constraint.conrelid pg_catalog.pg_constraint.contype pg_catalog.pg_constraint.oid pg_catalog.pg_index.conindid pg_catalog.pg_index.conrelid pg_catalog.pg_index.contype pg_catalog.pg_index.indexrelid pg_catalog.pg_index.indisprimary pg_catalog.pg_index.indrelid; tests pg_catalog.pg_class.conindid pg_catalog.pg_class.conrelid pg_catalog.pg_class.contype pg_catalog.pg_class.oid pg_catalog.pg_class.relname pg_catalog.pg_constraint.conindid pg_catalog.pg_constraint.conrelid pg_catalog.pg_constraint.contype pg_catalog.pg_index.conindid pg_catalog.pg_index.conrelid pg_catalog.pg_index.contype pg_catalog.pg_index.indexrelid pg_catalog.pg_index.indisprimary pg_catalog.pg_index.indrelid; calls pg_get_constraintdef pg_get_indexdef; literal
SELECT d.datname as "Name", pg_catalog.pg_get_userbyid(d.datdba) as "Owner", pg_catalog.pg_encoding_to_char(d.encoding) as "Encoding", pg_catalog.array_to_string(d.datacl, E'\n') AS "Access privileges" FROM pg_catalog.pg_database d ORDER BY 1;
--> SELECT read; tables pg_database; reads pg_catalog.pg_database.datacl pg_catalog.pg_database.datdba pg_catalog.pg_database.datname pg_catalog.pg_database.encoding; tests pg_catalog.pg_database.datname; calls array_to_string pg_encoding_to_char pg_get_userbyid; literal
SELECT t.oid, t.typname, t.typbasetype FROM pg_type AS t WHERE t.typname IN ('int2', 'int4') OR t.typtype IN ('r', 'e', 'd') OR t.typinput = 'array_in(cstring,oid,integer)'::regprocedure;
--> SELECT read; tables pg_type; reads pg_catalog.pg_type.oid pg_catalog.pg_type.typbasetype pg_catalog.pg_type.typinput pg_catalog.pg_type.typname pg_catalog.pg_type.typtype; tests pg_catalog.pg_type.typinput pg_catalog.pg_type.typname pg_catalog.pg_type.typtype; literal
SET extra_float_digits = 3; SET application_name = 'PostgreSQL JDBC Driver';
--> SET read; literal; setting extra_float_digits; value 3
--> SET read; literal; setting application_name; value PostgreSQL JDBC Driver
SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;
--> SELECT read; calls pg_advisory_unlock_all
--> CLOSE CURSOR read
--> UNLISTEN read; literal
--> RESET ALL read; literal
SELECT 1 /* ping */;
--> SELECT read
-- ping
;
--> - read
SELECT current_schema(), current_database(), version();
--> SELECT read; calls current_database current_schema version
SHOW server_version_num;
--> SHOW read; literal; setting server_version_num
SELECT TABLE_SCHEMA, table_name FROM information_schema.tables WHERE table_schema NOT IN ('pg_catalog', 'information_schema');
--> SELECT read; tables information_schema.tables; reads information_schema.tables.table_name information_schema.tables.table_schema; tests information_schema.tables.table_schema
SELECT NULL AS TABLE_CAT, n.nspname AS TABLE_SCHEM, ct.relname AS TABLE_NAME, a.attname AS COLUMN_NAME, (information_schema._pg_expandarray(i.indkey)).n AS KEY_SEQ FROM pg_catalog.pg_class ct JOIN pg_catalog.pg_attribute a ON (ct.oid = a.attrelid) JOIN pg_catalog.pg_namespace n ON (ct.relnamespace = n.oid) JOIN pg_catalog.pg_index i ON (a.attrelid = i.indrelid) WHERE i.indisprimary;
--> SELECT read; tables pg_attribute pg_class pg_index pg_namespace; reads pg_catalog.pg_attribute.attname pg_catalog.pg_attribute.attrelid pg_catalog.pg_class.oid pg_catalog.pg_class.relname pg_catalog.pg_class.relnamespace pg_catalog.pg_index.indisprimary pg_catalog.pg_index.indkey pg_catalog.pg_index.indrelid pg_catalog.pg_namespace.nspname pg_catalog.pg_namespace.oid; tests pg_catalog.pg_attribute.attrelid pg_catalog.pg_class.oid pg_catalog.pg_class.relnamespace pg_catalog.pg_index.indisprimary pg_catalog.pg_index.indrelid pg_catalog.pg_namespace.oid; calls information_schema._pg_expandarray
SELECT "patients"."id" AS t0_c0, "patients"."name" AS t0_c1 FROM "public"."patients" WHERE ("patients"."id" = $1 AND 1=1) LIMIT $2 OFFSET $3;
--> SELECT read; tables patients; reads patients.id patients.name; tests patients.id
SELECT p1_0.id, p1_0.name FROM patients p1_0 WHERE p1_0.id IN ($1, 2);
--> SELECT read; tables patients; reads patients.id patients.name; tests patients.id
SELECT alembic_version.version_num FROM alembic_version;
--> SELECT read; tables alembic_version; reads alembic_version.version_num
SELECT pg_is_in_recovery(), pg_size_pretty(pg_relation_size('patients')), txid_current_if_assigned();
--> SELECT read; calls pg_is_in_recovery pg_relation_size pg_size_pretty txid_current_if_assigned; literal
SELECT typname, typinput::oid::regproc FROM pg_type LIMIT 1;
--> SELECT read; tables pg_type; reads pg_catalog.pg_type.typinput pg_catalog.pg_type.typname; literal; limit 1
SELECT quote_ident(nspname) FROM pg_namespace WHERE substring(quote_ident(nspname), 1, 2) = 'pa' UNION SELECT quote_ident(relname) || '.' FROM pg_class LIMIT 1000;
--> SELECT read; tables pg_class pg_namespace; reads pg_catalog.pg_class.relname pg_catalog.pg_namespace.nspname; tests pg_catalog.pg_class.relname pg_catalog.pg_namespace.nspname; calls quote_ident substring; literal; limit 1000
