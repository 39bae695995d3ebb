package postgres

import "strings"

// systemHarmless reports whether a column (0: all) of a relation that came with
// PostgreSQL holds names, definitions, counters and settings only: no value of
// a user's column, no other session's text, no password.
//
// pg_attribute.attmissingval, the value that rows older than a column have, is
// the one secret column in a table that every client reads; a statement that
// mentions it is not harmless (see harmless).
func systemHarmless(rel *relation, num int16) bool {
	switch {
	case rel.schema == "information_schema":
		return (rel.kind == 'v' || rel.kind == 'r') && !strings.Contains(rel.name, "user_mapping") && !strings.Contains(rel.name, "foreign_")
	case rel.schema != "pg_catalog":
		return false
	case rel.kind == 'v':
		return harmlessViews[rel.name] || statisticsView(rel.name)
	case rel.kind != 'r' || secretTables[rel.name]:
		return false
	case rel.name == "pg_attribute":
		return rel.column(num) == nil || rel.column(num).name != "attmissingval"
	}
	return true
}

// secretTables of pg_catalog hold values of users' columns, passwords or
// connection strings.
var secretTables = map[string]bool{
	"pg_authid": true, "pg_largeobject": true, "pg_statistic": true, "pg_statistic_ext_data": true,
	"pg_subscription": true, "pg_user_mapping": true, "pg_foreign_server": true, "pg_foreign_table": true,
	"pg_db_role_setting": true,
}

// harmlessViews of pg_catalog. Missing on purpose: pg_stats and its kin
// (values), pg_stat_activity (other sessions' texts), pg_prepared_statements
// and pg_cursors (texts, and names that a value can hide in), pg_locks (keys of
// advisory locks), pg_shadow, pg_user_mappings, pg_file_settings.
var harmlessViews = map[string]bool{
	"pg_available_extension_versions": true, "pg_available_extensions": true, "pg_group": true, "pg_indexes": true,
	"pg_matviews": true, "pg_policies": true, "pg_publication_tables": true, "pg_roles": true, "pg_rules": true,
	"pg_sequences": true, "pg_settings": true, "pg_tables": true, "pg_timezone_abbrevs": true, "pg_timezone_names": true,
	"pg_user": true, "pg_views": true,
}

// statisticsView are the views of counters per table and index.
func statisticsView(name string) bool {
	for _, front := range []string{"pg_stat_all_", "pg_stat_sys_", "pg_stat_user_", "pg_statio_"} {
		if strings.HasPrefix(name, front) {
			return true
		}
	}
	return name == "pg_stat_database" || name == "pg_stat_bgwriter"
}

// impureNames are functions that pg_proc calls stable or immutable and that
// nevertheless read tables, settings or other sessions.
var impureNames = map[string]bool{
	"current_setting": true, "pg_cursor": true, "pg_prepared_statement": true, "pg_listening_channels": true,
	"pg_show_all_settings": true, "pg_mcv_list_items": true, "pg_config": true, "pg_get_object_address": true,
	"pg_options_to_table": true, "ts_stat": true, "ts_rewrite": true,
}

// impureName catches families: what turns tables, queries, cursors, schemas
// and databases into XML, other sessions' statistics, files, large objects.
func impureName(name string) bool {
	if strings.Contains(name, "_to_xml") {
		return true
	}
	for _, front := range []string{"pg_stat_get_", "pg_get_replication", "pg_read_", "pg_ls_", "lo_", "binary_upgrade_", "pg_logical_", "pg_event_trigger_"} {
		if strings.HasPrefix(name, front) {
			return true
		}
	}
	return false
}

// pureVolatile are the volatile functions that tell the time, chance, sizes
// and counters, and nothing else. setval, which could smuggle a value into a
// sequence, is not among them.
var pureVolatile = map[string]bool{
	"clock_timestamp": true, "gen_random_uuid": true, "random": true, "timeofday": true,
	"pg_sleep": true, "pg_sleep_for": true, "pg_sleep_until": true,
	"nextval": true, "currval": true, "lastval": true,
	"pg_database_size": true, "pg_relation_size": true, "pg_table_size": true, "pg_indexes_size": true,
	"pg_total_relation_size": true, "pg_tablespace_size": true,
	"pg_is_in_recovery": true, "pg_jit_available": true, "pg_last_wal_receive_lsn": true, "pg_last_wal_replay_lsn": true,
	"pg_current_wal_lsn": true, "pg_partition_tree": true, "pg_partition_ancestors": true, "txid_status": true, "pg_xact_status": true,
}
