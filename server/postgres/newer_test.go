package postgres

import (
	"testing"

	"github.com/hoopctl/hoopctl/server/postgres/pgtest"
)

// The room's most important tests again, with PostgreSQL 18 as the target.
func TestPostgreSQL18(t *testing.T) {
	pgtest.Use18(t)
	for _, again := range []struct {
		name string
		test func(*testing.T)
	}{
		{"Psql", TestPsqlTalksThroughTheRoom},
		{"Pgx", TestPgxSpeaksEveryMode},
		{"LibPQ", TestLibPQ},
		{"Login", TestLogin},
		{"TLSAndChannelBinding", TestTLSAndChannelBinding},
		{"T10 StartupParameters", TestT10_StartupParameters},
		{"T15 ProtocolVersions", TestT15_ProtocolVersions},
		{"Conformance", TestConformance},
		{"SameBytesAsDirect", TestSameBytesAsDirect},
		{"Extended", TestExtendedProtocolAsPostgresSpeaksIt},
		{"Pipelines", TestPipelines},
		{"T30 RefusalInAPipeline", TestT30_RefusalInAPipeline},
		{"T33 PreparedNamesFollowSQL", TestT33_PreparedNamesFollowSQL},
		{"T34 MessagesThatAreNotSpoken", TestT34_MessagesThatAreNotSpoken},
		{"Copy", TestCopy},
		{"LargeValues", TestLargeValues},
		{"Asides", TestAsidesKeepTheirPlace},
		{"T20 LateCancel", TestT20_LateCancelHitsNobody},
		{"T21 Cancel", TestT21_CancelReachesTheTargetOverTLSAndIsRecorded},
		{"T22 ForgedCancel", TestT22_ForgedCancel},
		{"T23 NothingOfASessionIsLeft", TestT23_NothingOfASessionIsLeft},
		{"T37 HoldInTransaction", TestT37_HoldInTransactionRollsBack},
		{"Revoked", TestRevokedSessionIsToldAndStopped},
		{"T35 Names", TestT35_NamesMeanWhatPostgreSQLSaysTheyMean},
		{"T40 Legal", TestT40_MaskedValuesAreLegalForTheirTypes},
		{"T40 Formats", TestT40_FormatsAgree},
		{"T40 Columns", TestT40_ColumnsOfATaggedTarget},
		{"T40 RowsWithoutADescribe", TestT40_RowsWithoutADescribe},
		{"T40 CopyOut", TestT40_CopyOut},
		{"T41 Names", TestT41_ColumnNamesCarryNoValues},
		{"T41 Errors", TestT41_ErrorsAndNoticesCarryNoValues},
		{"Catalog bare columns", TestCatalog_BareColumnsAreRawOnlyIfUntaggedInAnOrdinaryTable},
		{"Catalog untagged", TestCatalog_StatementsThatReachNoTaggedColumnAreShown},
		{"Catalog ordinary", TestCatalog_OrdinaryStatementsWithRealFacts},
		{"Catalog rename", TestCatalog_RenameDropAndAddKeepTagsByOIDAndNumber},
		{"Catalog partitions", TestCatalog_PartitionsAndInheritance},
	} {
		t.Run(again.name, again.test)
	}
}
