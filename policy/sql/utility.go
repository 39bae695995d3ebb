package sql

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/hoopctl/hoopctl/policy"
)

// judge names a utility statement and says its class. A form that it does not
// know is admin under the grammar's own name for it.
func judge(n *pg.Node) verdict {
	switch s := n.GetNode().(type) {
	case *pg.Node_CreateStmt:
		return verdict{"CREATE TABLE", policy.Schema}
	case *pg.Node_IndexStmt:
		return verdict{"CREATE INDEX", policy.Schema}
	case *pg.Node_CreateSeqStmt:
		return verdict{"CREATE SEQUENCE", policy.Schema}
	case *pg.Node_AlterSeqStmt:
		return verdict{"ALTER SEQUENCE", policy.Schema}
	case *pg.Node_CreateSchemaStmt:
		return createSchema(s.CreateSchemaStmt)
	case *pg.Node_CreateDomainStmt:
		return verdict{"CREATE DOMAIN", policy.Schema}
	case *pg.Node_AlterDomainStmt:
		return verdict{"ALTER DOMAIN", policy.Schema}
	case *pg.Node_CompositeTypeStmt, *pg.Node_CreateEnumStmt, *pg.Node_CreateRangeStmt:
		return verdict{"CREATE TYPE", policy.Schema}
	case *pg.Node_AlterEnumStmt:
		return verdict{"ALTER TYPE", policy.Schema}
	case *pg.Node_CreateStatsStmt:
		return verdict{"CREATE STATISTICS", policy.Schema}
	case *pg.Node_AlterStatsStmt:
		return verdict{"ALTER STATISTICS", policy.Schema}
	case *pg.Node_AlterTableStmt:
		return alterTable(s.AlterTableStmt)
	case *pg.Node_TruncateStmt:
		return verdict{"TRUNCATE TABLE", policy.Schema}
	case *pg.Node_DropStmt:
		return verdict{"DROP " + objectName(s.DropStmt.GetRemoveType()), objectClass(s.DropStmt.GetRemoveType())}
	case *pg.Node_RenameStmt:
		return verdict{"ALTER " + objectName(s.RenameStmt.GetRenameType()), objectClass(s.RenameStmt.GetRenameType())}
	case *pg.Node_AlterObjectSchemaStmt:
		t := s.AlterObjectSchemaStmt.GetObjectType()
		return verdict{"ALTER " + objectName(t), objectClass(t)}
	case *pg.Node_RefreshMatViewStmt:
		return verdict{"REFRESH MATERIALIZED VIEW", policy.Schema}
	default:
		return maintenance(n)
	}
}

func maintenance(n *pg.Node) verdict {
	switch s := n.GetNode().(type) {
	case *pg.Node_VacuumStmt:
		if s.VacuumStmt.GetIsVacuumcmd() {
			return verdict{"VACUUM", policy.Schema}
		}
		return verdict{"ANALYZE", policy.Schema}
	case *pg.Node_ReindexStmt:
		return verdict{"REINDEX", policy.Schema}
	case *pg.Node_ClusterStmt:
		return verdict{"CLUSTER", policy.Schema}
	case *pg.Node_DiscardStmt:
		return verdict{strings.ReplaceAll(s.DiscardStmt.GetTarget().String(), "_", " "), policy.Read}
	case *pg.Node_ConstraintsSetStmt:
		return verdict{"SET CONSTRAINTS", policy.Read}
	case *pg.Node_UnlistenStmt:
		return verdict{"UNLISTEN", policy.Read}
	case *pg.Node_ListenStmt:
		return verdict{"LISTEN", policy.Admin}
	case *pg.Node_NotifyStmt:
		return verdict{"NOTIFY", policy.Admin}
	case *pg.Node_DoStmt:
		return verdict{"DO", policy.Admin}
	case *pg.Node_CheckPointStmt:
		return verdict{"CHECKPOINT", policy.Admin}
	case *pg.Node_LoadStmt:
		return verdict{"LOAD", policy.Admin}
	case *pg.Node_CommentStmt:
		return verdict{"COMMENT", policy.Admin}
	case *pg.Node_SecLabelStmt:
		return verdict{"SECURITY LABEL", policy.Admin}
	default:
		return administration(n)
	}
}

// administration names what is admin for a reason: it changes who may do what,
// what code runs, or the server itself.
func administration(n *pg.Node) verdict {
	name := ""
	switch s := n.GetNode().(type) {
	case *pg.Node_GrantStmt:
		name = map[bool]string{true: "GRANT", false: "REVOKE"}[s.GrantStmt.GetIsGrant()]
	case *pg.Node_GrantRoleStmt:
		name = map[bool]string{true: "GRANT ROLE", false: "REVOKE ROLE"}[s.GrantRoleStmt.GetIsGrant()]
	case *pg.Node_CreateFunctionStmt:
		name = map[bool]string{true: "CREATE PROCEDURE", false: "CREATE FUNCTION"}[s.CreateFunctionStmt.GetIsProcedure()]
	case *pg.Node_DefineStmt:
		name = "CREATE " + objectName(s.DefineStmt.GetKind())
	case *pg.Node_AlterOwnerStmt:
		name = "ALTER " + objectName(s.AlterOwnerStmt.GetObjectType())
	default:
		name = grammarName(n)
	}
	return verdict{name, policy.Admin}
}

// grammarName makes words of the grammar's name of a statement:
// CreateTrigStmt is "CREATE TRIG"; the few that read badly are spelled out.
func grammarName(n *pg.Node) string {
	m := inner(n)
	if m == nil {
		return "UNKNOWN"
	}
	name := strings.TrimSuffix(string(m.ProtoReflect().Descriptor().Name()), "Stmt")
	if full, ok := map[string]string{
		"CreateTrig": "CREATE TRIGGER", "Rule": "CREATE RULE", "CreateEventTrig": "CREATE EVENT TRIGGER", "AlterEventTrig": "ALTER EVENT TRIGGER",
		"CreatePLang": "CREATE LANGUAGE", "CreateFdw": "CREATE FOREIGN DATA WRAPPER", "AlterFdw": "ALTER FOREIGN DATA WRAPPER", "CreateForeignServer": "CREATE SERVER",
		"AlterForeignServer": "ALTER SERVER", "Createdb": "CREATE DATABASE", "Dropdb": "DROP DATABASE", "CreateAm": "CREATE ACCESS METHOD",
		"CreateOpClass": "CREATE OPERATOR CLASS", "CreateOpFamily": "CREATE OPERATOR FAMILY", "AlterOpFamily": "ALTER OPERATOR FAMILY",
		"AlterTSDictionary": "ALTER TEXT SEARCH DICTIONARY", "AlterTSConfiguration": "ALTER TEXT SEARCH CONFIGURATION", "AlterRoleSet": "ALTER ROLE",
		"AlterDatabaseSet": "ALTER DATABASE", "AlterDatabaseRefreshColl": "ALTER DATABASE", "CreateTableSpace": "CREATE TABLESPACE", "DropTableSpace": "DROP TABLESPACE",
		"AlterTableSpaceOptions": "ALTER TABLESPACE", "AlterTableMoveAll": "ALTER TABLE", "AlterExtensionContents": "ALTER EXTENSION", "AlterObjectDepends": "ALTER",
	}[name]; ok {
		return full
	}
	var out strings.Builder
	for i, r := range name {
		if i > 0 && r >= 'A' && r <= 'Z' {
			out.WriteByte(' ')
		}
		out.WriteRune(r)
	}
	return strings.ToUpper(out.String())
}

// createSchema: what it creates inside may be a trigger.
func createSchema(s *pg.CreateSchemaStmt) verdict {
	v := verdict{"CREATE SCHEMA", policy.Schema}
	if s.GetAuthrole() != nil {
		v.class = policy.Admin
	}
	for _, n := range s.GetSchemaElts() {
		if n.GetViewStmt() == nil {
			v.class = policy.Stricter(v.class, judge(n).class)
		}
	}
	return v
}

// alterTable is admin where it changes an owner, row security, triggers or
// rules, or anything not listed.
func alterTable(s *pg.AlterTableStmt) verdict {
	v := verdict{"ALTER " + objectName(s.GetObjtype()), objectClass(s.GetObjtype())}
	for _, n := range s.GetCmds() {
		if !alters(n.GetAlterTableCmd().GetSubtype()) {
			v.class = policy.Admin
		}
	}
	return v
}

func alters(t pg.AlterTableType) bool {
	switch t {
	case pg.AlterTableType_AT_AddColumn, pg.AlterTableType_AT_ColumnDefault, pg.AlterTableType_AT_DropNotNull, pg.AlterTableType_AT_SetNotNull,
		pg.AlterTableType_AT_SetExpression, pg.AlterTableType_AT_DropExpression, pg.AlterTableType_AT_SetStatistics, pg.AlterTableType_AT_SetOptions,
		pg.AlterTableType_AT_ResetOptions, pg.AlterTableType_AT_SetStorage, pg.AlterTableType_AT_SetCompression, pg.AlterTableType_AT_DropColumn,
		pg.AlterTableType_AT_AddIndex, pg.AlterTableType_AT_AddConstraint, pg.AlterTableType_AT_AlterConstraint, pg.AlterTableType_AT_ValidateConstraint,
		pg.AlterTableType_AT_AddIndexConstraint, pg.AlterTableType_AT_DropConstraint, pg.AlterTableType_AT_AlterColumnType,
		pg.AlterTableType_AT_ClusterOn, pg.AlterTableType_AT_DropCluster, pg.AlterTableType_AT_SetLogged, pg.AlterTableType_AT_SetUnLogged,
		pg.AlterTableType_AT_SetRelOptions, pg.AlterTableType_AT_ResetRelOptions, pg.AlterTableType_AT_AddInherit, pg.AlterTableType_AT_DropInherit,
		pg.AlterTableType_AT_AttachPartition, pg.AlterTableType_AT_DetachPartition, pg.AlterTableType_AT_DetachPartitionFinalize,
		pg.AlterTableType_AT_AddIdentity, pg.AlterTableType_AT_SetIdentity, pg.AlterTableType_AT_DropIdentity:
		return true
	}
	return false
}

// objectName is an object type in PostgreSQL's words.
func objectName(t pg.ObjectType) string {
	switch t {
	case pg.ObjectType_OBJECT_MATVIEW:
		return "MATERIALIZED VIEW"
	case pg.ObjectType_OBJECT_LARGEOBJECT:
		return "LARGE OBJECT"
	case pg.ObjectType_OBJECT_FDW:
		return "FOREIGN DATA WRAPPER"
	case pg.ObjectType_OBJECT_FOREIGN_SERVER:
		return "SERVER"
	case pg.ObjectType_OBJECT_STATISTIC_EXT:
		return "STATISTICS"
	case pg.ObjectType_OBJECT_COLUMN, pg.ObjectType_OBJECT_TABCONSTRAINT:
		return "TABLE"
	case pg.ObjectType_OBJECT_ATTRIBUTE:
		return "TYPE"
	case pg.ObjectType_OBJECT_DOMCONSTRAINT:
		return "DOMAIN"
	case pg.ObjectType_OBJECT_TSCONFIGURATION:
		return "TEXT SEARCH CONFIGURATION"
	case pg.ObjectType_OBJECT_TSDICTIONARY:
		return "TEXT SEARCH DICTIONARY"
	case pg.ObjectType_OBJECT_TSPARSER:
		return "TEXT SEARCH PARSER"
	case pg.ObjectType_OBJECT_TSTEMPLATE:
		return "TEXT SEARCH TEMPLATE"
	case pg.ObjectType_OBJECT_OPCLASS:
		return "OPERATOR CLASS"
	case pg.ObjectType_OBJECT_OPFAMILY:
		return "OPERATOR FAMILY"
	default:
		return strings.ReplaceAll(strings.TrimPrefix(t.String(), "OBJECT_"), "_", " ")
	}
}

// objectClass: what holds or describes data is schema, what holds code or
// rights is admin.
func objectClass(t pg.ObjectType) policy.Class {
	switch t {
	case pg.ObjectType_OBJECT_TABLE, pg.ObjectType_OBJECT_INDEX, pg.ObjectType_OBJECT_SEQUENCE, pg.ObjectType_OBJECT_VIEW, pg.ObjectType_OBJECT_MATVIEW,
		pg.ObjectType_OBJECT_SCHEMA, pg.ObjectType_OBJECT_TYPE, pg.ObjectType_OBJECT_DOMAIN, pg.ObjectType_OBJECT_COLUMN, pg.ObjectType_OBJECT_ATTRIBUTE,
		pg.ObjectType_OBJECT_TABCONSTRAINT, pg.ObjectType_OBJECT_DOMCONSTRAINT, pg.ObjectType_OBJECT_STATISTIC_EXT, pg.ObjectType_OBJECT_COLLATION:
		return policy.Schema
	default:
		return policy.Admin
	}
}
