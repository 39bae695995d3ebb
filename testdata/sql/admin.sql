-- What changes rights, code or the server.
CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'DELETE FROM visits; SELECT 1';
--> CREATE FUNCTION admin; literal
CREATE OR REPLACE FUNCTION f(a int DEFAULT 1) RETURNS SETOF record LANGUAGE plpgsql SECURITY DEFINER AS $$BEGIN RETURN; END$$;
--> CREATE FUNCTION admin; literal
CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT CASE WHEN a > 1 THEN 2 END; END;
--> CREATE FUNCTION admin; literal
CREATE PROCEDURE p() LANGUAGE sql AS 'DELETE FROM visits';
--> CREATE PROCEDURE admin; literal
CREATE AGGREGATE myagg(text) (SFUNC = sf, STYPE = text);
--> CREATE AGGREGATE admin; literal
CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = f);
--> CREATE OPERATOR admin; literal
CREATE CAST (text AS int) WITH FUNCTION f(text);
--> CREATE CAST admin; literal
CREATE TRIGGER t BEFORE UPDATE ON patients FOR EACH ROW EXECUTE FUNCTION f();
--> CREATE TRIGGER admin; tables patients; literal
CREATE EVENT TRIGGER t ON ddl_command_start EXECUTE FUNCTION f();
--> CREATE EVENT TRIGGER admin; literal
CREATE RULE r AS ON SELECT TO x DO INSTEAD SELECT 1;
--> CREATE RULE admin; tables x; literal
CREATE RULE r AS ON INSERT TO x DO ALSO (DELETE FROM visits; INSERT INTO doctors VALUES (1));
--> CREATE RULE admin; tables doctors visits x; literal
CREATE EXTENSION dblink;
--> CREATE EXTENSION admin; literal
CREATE LANGUAGE plpython3u;
--> CREATE EXTENSION admin; literal
CREATE FOREIGN DATA WRAPPER w;
--> CREATE FOREIGN DATA WRAPPER admin; literal
CREATE SERVER lo FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1');
--> CREATE SERVER admin; literal
CREATE USER MAPPING FOR CURRENT_USER SERVER lo OPTIONS (user 'postgres', password 'secret');
--> CREATE USER MAPPING admin; literal
CREATE FOREIGN TABLE ft (z text) SERVER lo;
--> CREATE FOREIGN TABLE admin; tables ft; literal
IMPORT FOREIGN SCHEMA public FROM SERVER lo INTO app;
--> IMPORT FOREIGN SCHEMA admin; literal
CREATE PUBLICATION p FOR ALL TABLES;
--> CREATE PUBLICATION admin; literal
CREATE SUBSCRIPTION s CONNECTION 'host=x' PUBLICATION p;
--> CREATE SUBSCRIPTION admin; literal
CREATE POLICY p ON patients USING (true);
--> CREATE POLICY admin; tables patients; literal
CREATE ROLE bob LOGIN PASSWORD 'secret';
--> CREATE ROLE admin; literal
CREATE USER bob;
--> CREATE ROLE admin; literal
CREATE DATABASE x;
--> CREATE DATABASE admin; literal
CREATE TABLESPACE fast LOCATION '/x';
--> CREATE TABLESPACE admin; literal
CREATE CONVERSION c FOR 'UTF8' TO 'LATIN1' FROM f;
--> CREATE CONVERSION admin; literal
CREATE TEXT SEARCH CONFIGURATION c (COPY = simple);
--> CREATE TEXT SEARCH CONFIGURATION admin; literal
CREATE COLLATION c (LOCALE = 'C');
--> CREATE COLLATION admin; literal
CREATE ACCESS METHOD m TYPE INDEX HANDLER h;
--> CREATE ACCESS METHOD admin; literal
CREATE OPERATOR CLASS c FOR TYPE int USING btree AS OPERATOR 1 <;
--> CREATE OPERATOR CLASS admin; literal
CREATE TRANSFORM FOR int LANGUAGE sql (FROM SQL WITH FUNCTION f(internal));
--> CREATE TRANSFORM admin; literal
ALTER ROLE bob SUPERUSER;
--> ALTER ROLE admin; literal
ALTER ROLE bob SET search_path = x;
--> ALTER ROLE admin; literal
ALTER DATABASE x SET work_mem = '1MB';
--> ALTER DATABASE admin; literal
ALTER SYSTEM SET fsync = off;
--> ALTER SYSTEM admin; literal
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO bob;
--> ALTER DEFAULT PRIVILEGES admin; literal
ALTER FUNCTION f() OWNER TO bob;
--> ALTER FUNCTION admin; literal
ALTER FUNCTION f() IMMUTABLE;
--> ALTER FUNCTION admin; literal
ALTER EXTENSION dblink UPDATE;
--> ALTER EXTENSION admin; literal
ALTER TRIGGER t ON patients RENAME TO u;
--> ALTER TRIGGER admin; tables patients; literal
ALTER POLICY p ON patients USING (false);
--> ALTER POLICY admin; tables patients; literal
ALTER SERVER lo OPTIONS (SET host 'x');
--> ALTER SERVER admin; literal
ALTER SCHEMA app OWNER TO bob;
--> ALTER SCHEMA admin; literal
ALTER LARGE OBJECT 1 OWNER TO bob;
--> ALTER LARGE OBJECT admin; literal
GRANT SELECT ON patients TO bob;
--> GRANT admin; tables patients; literal
GRANT admin TO bob WITH ADMIN OPTION;
--> GRANT ROLE admin; literal
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM bob;
--> REVOKE admin; literal
REVOKE admin FROM bob;
--> REVOKE ROLE admin; literal
DROP ROLE bob;
--> DROP ROLE admin; literal
DROP FUNCTION f();
--> DROP FUNCTION admin; literal
DROP TRIGGER t ON patients;
--> DROP TRIGGER admin; tables patients; literal
DROP EXTENSION dblink;
--> DROP EXTENSION admin; literal
DROP OWNED BY bob;
--> DROP OWNED admin; literal
DROP DATABASE x;
--> DROP DATABASE admin; literal
DROP POLICY p ON patients;
--> DROP POLICY admin; tables patients; literal
DROP SERVER lo CASCADE;
--> DROP SERVER admin; literal
REASSIGN OWNED BY bob TO alice;
--> REASSIGN OWNED admin; literal
COMMENT ON TABLE patients IS 'x';
--> COMMENT admin; tables patients; literal
COMMENT ON COLUMN patients.ssn IS NULL;
--> COMMENT admin; tables patients; literal
SECURITY LABEL ON TABLE patients IS 'x';
--> SECURITY LABEL admin; tables patients; literal
CHECKPOINT;
--> CHECKPOINT admin; literal
LOAD 'x';
--> LOAD admin; literal
SELECT pg_read_file('/etc/passwd'), pg_read_binary_file('x'), pg_ls_dir('/'), pg_stat_file('x');
--> SELECT admin; calls pg_ls_dir pg_read_binary_file pg_read_file pg_stat_file; literal
SELECT lo_import('/etc/passwd'), lo_export(1, '/tmp/x'), lo_create(1), lo_get(1), loread(1, 2);
--> SELECT admin; calls lo_create lo_export lo_get lo_import loread; literal
SELECT dblink('host=x', 'SELECT 1'), dblink_exec('DELETE FROM visits'), public.dblink_connect('x');
--> SELECT admin; calls dblink dblink_connect dblink_exec; literal
SELECT * FROM dblink('host=x', 'SELECT ssn FROM patients') AS d(ssn text);
--> SELECT admin; calls dblink; literal
SELECT query_to_xml('SELECT ssn FROM patients', true, false, '');
--> SELECT admin; calls query_to_xml; literal
SELECT table_to_xml('patients', true, false, ''), cursor_to_xml('c', 1, true, false, ''), database_to_xml(true, false, '');
--> SELECT admin; calls cursor_to_xml database_to_xml table_to_xml; literal
SELECT ts_stat('SELECT ssn FROM patients');
--> SELECT admin; calls ts_stat; literal
SELECT pg_reload_conf(), pg_rotate_logfile(), pg_switch_wal(), pg_promote();
--> SELECT admin; calls pg_promote pg_reload_conf pg_rotate_logfile pg_switch_wal; literal
SELECT pg_create_logical_replication_slot('a', 'test_decoding'), pg_logical_slot_get_changes('a', NULL, NULL);
--> SELECT admin; calls pg_create_logical_replication_slot pg_logical_slot_get_changes; literal
SELECT pg_stat_reset(), pg_import_system_collations('x');
--> SELECT admin; calls pg_import_system_collations pg_stat_reset; literal
SELECT bt_page_items('patients_ssn_key', 1), get_raw_page('patients', 0);
--> SELECT admin; calls bt_page_items get_raw_page; literal
SELECT crosstab('SELECT ssn FROM patients');
--> SELECT admin; calls crosstab; literal
