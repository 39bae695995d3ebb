-- Transactions, settings, locks, notifications: what changes a session.
BEGIN;
--> BEGIN read; literal; transaction begin
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY;
--> BEGIN read; literal; transaction begin
START TRANSACTION;
--> START TRANSACTION read; literal; transaction begin
COMMIT;
--> COMMIT read; literal; transaction commit
COMMIT AND CHAIN;
--> COMMIT read; literal; transaction commit
END;
--> COMMIT read; literal; transaction commit
ROLLBACK;
--> ROLLBACK read; literal; transaction rollback
ABORT;
--> ROLLBACK read; literal; transaction rollback
SAVEPOINT s;
--> SAVEPOINT read; literal; transaction savepoint
RELEASE SAVEPOINT s;
--> RELEASE read; literal; transaction savepoint
ROLLBACK TO SAVEPOINT s;
--> ROLLBACK read; literal; transaction savepoint
PREPARE TRANSACTION 'x';
--> PREPARE TRANSACTION write; literal; transaction prepare
COMMIT PREPARED 'x';
--> COMMIT PREPARED admin; literal
ROLLBACK PREPARED 'x';
--> ROLLBACK PREPARED admin; literal
SET statement_timeout = '5s';
--> SET read; literal; setting statement_timeout; value 5s
SET LOCAL work_mem TO '64MB';
--> SET read; literal; setting work_mem; value 64MB
SET SESSION application_name = 'x';
--> SET read; literal; setting application_name; value x
SET search_path TO app, public;
--> SET read; literal; setting search_path; value app, public
SET TIME ZONE 'UTC';
--> SET read; literal; setting timezone; value UTC
SET TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE;
--> SET read; literal; setting timezone; value -08:00
SET NAMES 'UTF8';
--> SET read; literal; setting client_encoding; value UTF8
SET NAMES 'SJIS';
--> SET admin; literal; setting client_encoding; value SJIS
SET client_encoding TO 'utf-8';
--> SET read; literal; setting client_encoding; value utf-8
SET client_encoding = 'GBK';
--> SET admin; literal; setting client_encoding; value GBK
SET standard_conforming_strings = off;
--> SET admin; literal; setting standard_conforming_strings; value off
SET standard_conforming_strings TO on;
--> SET read; literal; setting standard_conforming_strings; value on
SET extra_float_digits = 3;
--> SET read; literal; setting extra_float_digits; value 3
SET enable_seqscan = off;
--> SET read; literal; setting enable_seqscan; value off
SET datestyle = ISO, MDY;
--> SET read; literal; setting datestyle; value iso, mdy
SET ROLE admin;
--> SET admin; literal; setting role; value admin
SET ROLE NONE;
--> SET admin; literal; setting role; value none
SET SESSION AUTHORIZATION admin;
--> SET admin; literal; setting session_authorization; value admin
SET SESSION AUTHORIZATION DEFAULT;
--> SET read; literal; setting session_authorization
SET row_security = off;
--> SET admin; literal; setting row_security; value off
SET session_replication_role = replica;
--> SET admin; literal; setting session_replication_role; value replica
SET hoopctl.principal = 'mallory';
--> SET admin; literal; setting hoopctl.principal; value mallory
SET a.b = 'x';
--> SET admin; literal; setting a.b; value x
SET lo_compat_privileges = on;
--> SET admin; literal; setting lo_compat_privileges; value on
SET debug_print_parse = on;
--> SET admin; literal; setting debug_print_parse; value on
SET log_statement = 'none';
--> SET admin; literal; setting log_statement; value none
SET statement_timeout TO DEFAULT;
--> SET read; literal; setting statement_timeout
SET a.b TO DEFAULT;
--> SET admin; literal; setting a.b
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
--> SET read; literal; setting transaction
SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY;
--> SET read; literal; setting session characteristics
SET TRANSACTION SNAPSHOT '00000003-0000001B-1';
--> SET read; literal; setting transaction snapshot
SET CONSTRAINTS ALL DEFERRED;
--> SET CONSTRAINTS read; literal
SET XML OPTION DOCUMENT;
--> SET read; literal; setting xmloption; value DOCUMENT
RESET statement_timeout;
--> RESET read; literal; setting statement_timeout
RESET ALL;
--> RESET ALL read; literal
RESET ROLE;
--> RESET admin; literal; setting role
RESET SESSION AUTHORIZATION;
--> RESET read; literal; setting session_authorization
RESET a.b;
--> RESET admin; literal; setting a.b
SHOW statement_timeout;
--> SHOW read; literal; setting statement_timeout
SHOW ALL;
--> SHOW read; literal; setting all
SHOW a.b;
--> SHOW read; literal; setting a.b
SHOW TRANSACTION ISOLATION LEVEL;
--> SHOW read; literal; setting transaction_isolation
SELECT set_config('work_mem', '1MB', false);
--> SELECT admin; calls set_config; literal; setting work_mem; value 1MB
SELECT set_config('role', 'admin', false);
--> SELECT admin; calls set_config; literal; setting role; value admin
SELECT set_config('application_name', ssn, false) FROM patients;
--> SELECT admin; tables patients; reads patients.ssn; calls set_config; literal
DISCARD ALL;
--> DISCARD ALL read; literal
DISCARD TEMP;
--> DISCARD TEMP read; literal
LISTEN ch;
--> LISTEN admin; literal
UNLISTEN ch;
--> UNLISTEN read; literal
UNLISTEN *;
--> UNLISTEN read; literal
NOTIFY ch;
--> NOTIFY admin; literal
NOTIFY ch, 'payload';
--> NOTIFY admin; literal
SELECT pg_notify('ch', ssn) FROM patients;
--> SELECT admin; tables patients; reads patients.ssn; calls pg_notify; literal
LOCK TABLE patients;
--> LOCK TABLE write; tables patients; locks
LOCK patients, visits IN ACCESS SHARE MODE NOWAIT;
--> LOCK TABLE write; tables patients visits; locks
SELECT pg_advisory_lock(1);
--> SELECT admin; calls pg_advisory_lock; literal
SELECT pg_try_advisory_xact_lock(1, 2);
--> SELECT admin; calls pg_try_advisory_xact_lock; literal
SELECT pg_advisory_unlock_all();
--> SELECT read; calls pg_advisory_unlock_all
SELECT pg_cancel_backend(1), pg_terminate_backend(1);
--> SELECT admin; calls pg_cancel_backend pg_terminate_backend; literal
SELECT set_config(name, 'view, foreign-table', false) FROM pg_settings WHERE name = 'restrict_nonsystem_relation_kind';
--> SELECT admin; tables pg_settings; reads pg_catalog.pg_settings.name; tests pg_catalog.pg_settings.name; calls set_config; literal; setting restrict_nonsystem_relation_kind; value view, foreign-table
SELECT set_config(name, 'x', false) FROM pg_settings WHERE name LIKE 'work%';
--> SELECT admin; tables pg_settings; reads pg_catalog.pg_settings.name; tests pg_catalog.pg_settings.name; calls set_config; literal
SELECT set_config(name, 'x', false) FROM pg_settings, people WHERE name = 'work_mem';
--> SELECT admin; tables pg_settings people; reads pg_catalog.pg_settings.name people.name; tests pg_catalog.pg_settings.name people.name; calls set_config; literal
SELECT set_config(setting, 'x', false) FROM pg_settings WHERE name = 'work_mem';
--> SELECT admin; tables pg_settings; reads pg_catalog.pg_settings.name pg_catalog.pg_settings.setting; tests pg_catalog.pg_settings.name; calls set_config; literal
SELECT (SELECT set_config(name, 'x', false) FROM people LIMIT 1) FROM pg_settings WHERE name = 'work_mem';
--> SELECT admin; tables pg_settings people; reads pg_catalog.pg_settings.name people.name; tests pg_catalog.pg_settings.name; calls set_config; literal
SET client_min_messages = notice; SET default_statistics_target = 10;
--> SET read; literal; setting client_min_messages; value notice
--> SET read; literal; setting default_statistics_target; value 10
