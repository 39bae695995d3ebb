package sql

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/hoopctl/hoopctl/policy"
)

// harmless are the settings that a session may change without changing what
// it may do, what its text means to the grammar, or what others see. Values
// matter for two of them.
const harmless = " application_name backend_flush_after bytea_output check_function_bodies client_connection_check_interval client_encoding client_min_messages " +
	"commit_delay constraint_exclusion cpu_index_tuple_cost cpu_operator_cost cpu_tuple_cost cursor_tuple_fraction datestyle default_statistics_target " +
	"default_text_search_config default_transaction_deferrable default_transaction_isolation default_transaction_read_only default_table_access_method " +
	"effective_cache_size effective_io_concurrency extra_float_digits force_parallel_mode debug_parallel_query from_collapse_limit geqo geqo_threshold gin_fuzzy_search_limit " +
	"gin_pending_list_limit hash_mem_multiplier idle_in_transaction_session_timeout idle_session_timeout intervalstyle jit jit_above_cost jit_inline_above_cost " +
	"jit_optimize_above_cost join_collapse_limit lc_messages lc_monetary lc_numeric lc_time lock_timeout logical_decoding_work_mem maintenance_io_concurrency " +
	"maintenance_work_mem max_parallel_maintenance_workers max_parallel_workers max_parallel_workers_per_gather max_stack_depth min_parallel_index_scan_size " +
	"min_parallel_table_scan_size parallel_leader_participation parallel_setup_cost parallel_tuple_cost password_encryption plan_cache_mode quote_all_identifiers " +
	"random_page_cost recursive_worktable_factor search_path seed seq_page_cost standard_conforming_strings escape_string_warning statement_timeout stats_fetch_consistency " +
	"synchronize_seqscans tcp_keepalives_count tcp_keepalives_idle tcp_keepalives_interval tcp_user_timeout temp_buffers timezone timezone_abbreviations " +
	"track_activities transaction_deferrable transaction_isolation transaction_read_only transaction_timeout transform_null_equals vacuum_buffer_usage_limit " +
	"work_mem xmlbinary xmloption "

func settingClass(name, value string) policy.Class {
	switch {
	case name == "standard_conforming_strings":
		// Off, the lexer and the grammar would read other strings than the server.
		if v := strings.ToLower(value); v != "" && v != "on" && v != "true" && v != "1" && v != "yes" {
			return policy.Admin
		}
	case name == "client_encoding":
		// Other encodings hold quotes and backslashes inside characters.
		v := strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(value))
		if v != "" && v != "utf8" && v != "unicode" {
			return policy.Admin
		}
	}
	if strings.HasPrefix(name, "enable_") || strings.Contains(harmless, " "+name+" ") {
		return policy.Read
	}
	return policy.Admin
}

// setting analyses SET and RESET.
func (a *analysis) setting(s *pg.VariableSetStmt) {
	a.literal = true
	name := strings.ToLower(s.GetName())
	switch s.GetKind() {
	case pg.VariableSetKind_VAR_RESET_ALL:
		a.command("RESET ALL", policy.Read)
	case pg.VariableSetKind_VAR_RESET:
		a.command("RESET", resetClass(name))
		a.facts.Setting = name
	case pg.VariableSetKind_VAR_SET_MULTI:
		// SET TRANSACTION and SET SESSION CHARACTERISTICS; SNAPSHOT names another session's.
		a.command("SET", policy.Read)
		a.facts.Setting = strings.ToLower(s.GetName())
	case pg.VariableSetKind_VAR_SET_DEFAULT:
		a.command("SET", resetClass(name))
		a.facts.Setting = name
	case pg.VariableSetKind_VAR_SET_CURRENT:
		a.command("SET", policy.Read) // only inside CREATE FUNCTION does it do anything
		a.facts.Setting = name
	default:
		value := settingValue(s.GetArgs())
		a.command("SET", settingClass(name, value))
		a.facts.Setting, a.facts.SettingValue = name, value
	}
}

// resetClass: going back to the log-in's own value is what poolers do between
// clients. A role is different: the server may have put the session into one
// that may do less than the log-in.
func resetClass(name string) policy.Class {
	if strings.Contains(name, ".") || name == "role" {
		return policy.Admin
	}
	return policy.Read
}

// settingValue is the value as SHOW would print it, for what a session can set.
func settingValue(args []*pg.Node) string {
	var out []string
	for _, n := range args {
		out = append(out, settingArg(n))
	}
	return strings.Join(out, ", ")
}

func settingArg(n *pg.Node) string {
	c := n.GetAConst()
	if t := n.GetTypeCast(); t != nil { // SET TIME ZONE INTERVAL '…'
		c = t.GetArg().GetAConst()
	}
	switch v := c.GetVal().(type) {
	case *pg.A_Const_Ival:
		return itoa(int(v.Ival.GetIval()))
	case *pg.A_Const_Fval:
		return v.Fval.GetFval()
	case *pg.A_Const_Boolval:
		return map[bool]string{true: "true", false: "false"}[v.Boolval.GetBoolval()]
	case *pg.A_Const_Sval:
		return v.Sval.GetSval()
	}
	return ""
}

// setConfig notes what set_config(name, value, …) is given. The class is admin
// either way: the function can be called once a row.
func (a *analysis) setConfig(args []*pg.Node) {
	if len(args) < 2 {
		a.once(&a.facts.Configures, "?")
		return
	}
	name, ok := stringOf(args[0])
	if !ok && a.settingRow != "" && isSettingName(args[0]) {
		name, ok = a.settingRow, true
	}
	if !ok {
		a.once(&a.facts.Configures, "?")
		return
	}
	name = strings.ToLower(name)
	a.once(&a.facts.Configures, name)
	if value, ok := stringOf(args[1]); ok {
		a.facts.Setting, a.facts.SettingValue = name, value
	}
}

// oneSetting is the name of the setting whose row is all that a SELECT reads:
// FROM pg_settings WHERE name = '…'. pg_dump sets what older servers do not know
// in this way.
func oneSetting(s *pg.SelectStmt) string {
	if len(s.GetFromClause()) != 1 {
		return ""
	}
	from, where := s.GetFromClause()[0].GetRangeVar(), s.GetWhereClause().GetAExpr()
	if from.GetRelname() != "pg_settings" || from.GetSchemaname() != "" && from.GetSchemaname() != "pg_catalog" ||
		where.GetKind() != pg.A_Expr_Kind_AEXPR_OP || lastName(where.GetName()) != "=" || !isSettingName(where.GetLexpr()) {
		return ""
	}
	name, _ := stringOf(where.GetRexpr())
	return name
}

// isSettingName tells whether a node is the column name, which is pg_settings's
// where nothing else is read.
func isSettingName(n *pg.Node) bool {
	fields := n.GetColumnRef().GetFields()
	return len(fields) == 1 && lastName(fields) == "name"
}

func stringOf(n *pg.Node) (string, bool) {
	v, ok := n.GetAConst().GetVal().(*pg.A_Const_Sval)
	if !ok {
		return "", false
	}
	return v.Sval.GetSval(), true
}
