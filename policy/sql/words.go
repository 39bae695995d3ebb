package sql

// word is a keyword that the lexer's readers act upon; wNone is any other
// word. Only what changes a decision is listed: this is not PostgreSQL's list.
type word uint8

const (
	wNone word = iota
	wAbort
	wAll
	wAlter
	wAnalyze
	wAnd
	wAny
	wAs
	wAt
	wAtomic
	wBegin
	wBetween
	wCall
	wCase
	wCheckpoint
	wClose
	wCluster
	wCollate
	wComment
	wCommit
	wCopy
	wCreate
	wDeallocate
	wDeclare
	wDelete
	wDiscard
	wDo
	wDrop
	wElse
	wEnd
	wExcept
	wExecute
	wExists
	wExplain
	wFetch
	wFilter
	wFor
	wFrom
	wFunction
	wGrant
	wGroup
	wHaving
	wImport
	wIn
	wInsert
	wIntersect
	wInto
	wIs
	wJoin
	wKey
	wLike
	wLimit
	wListen
	wLoad
	wLock
	wMerge
	wMove
	wNo
	wNot
	wNotify
	wOffset
	wOn
	wOnly
	wOperator
	wOr
	wOrder
	wOver
	wPrepare
	wProcedure
	wProgram
	wReassign
	wRefresh
	wReindex
	wRelease
	wReset
	wReturning
	wRevoke
	wRollback
	wSavepoint
	wSecurity
	wSelect
	wSet
	wShare
	wShow
	wStart
	wTable
	wThen
	wTo
	wTruncate
	wUnion
	wUnlisten
	wUpdate
	wUsing
	wVacuum
	wValues
	wWhen
	wWhere
	wWith
)

// lookup folds ASCII case as PostgreSQL does and finds the keyword. It does
// not allocate.
func lookup(s string) word {
	var buf [10]byte
	if len(s) < 2 || len(s) > len(buf) {
		return wNone
	}
	for i := range len(s) {
		c := s[i]
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		buf[i] = c
	}
	switch string(buf[:len(s)]) {
	case "abort":
		return wAbort
	case "all":
		return wAll
	case "alter":
		return wAlter
	case "analyze", "analyse":
		return wAnalyze
	case "and":
		return wAnd
	case "any", "some":
		return wAny
	case "as":
		return wAs
	case "at":
		return wAt
	case "atomic":
		return wAtomic
	case "begin":
		return wBegin
	case "between":
		return wBetween
	case "call":
		return wCall
	case "case":
		return wCase
	case "checkpoint":
		return wCheckpoint
	case "close":
		return wClose
	case "cluster":
		return wCluster
	case "collate":
		return wCollate
	case "comment":
		return wComment
	case "commit":
		return wCommit
	case "copy":
		return wCopy
	case "create":
		return wCreate
	case "deallocate":
		return wDeallocate
	case "declare":
		return wDeclare
	case "delete":
		return wDelete
	case "discard":
		return wDiscard
	case "do":
		return wDo
	case "drop":
		return wDrop
	case "else":
		return wElse
	case "end":
		return wEnd
	case "except":
		return wExcept
	case "execute":
		return wExecute
	case "exists":
		return wExists
	case "explain":
		return wExplain
	case "fetch":
		return wFetch
	case "filter":
		return wFilter
	case "for":
		return wFor
	case "from":
		return wFrom
	case "function":
		return wFunction
	case "grant":
		return wGrant
	case "group":
		return wGroup
	case "having":
		return wHaving
	case "import":
		return wImport
	case "in":
		return wIn
	case "insert":
		return wInsert
	case "intersect":
		return wIntersect
	case "into":
		return wInto
	case "is", "isnull", "notnull":
		return wIs
	case "join":
		return wJoin
	case "key":
		return wKey
	case "like", "ilike":
		return wLike
	case "limit":
		return wLimit
	case "listen":
		return wListen
	case "load":
		return wLoad
	case "lock":
		return wLock
	case "merge":
		return wMerge
	case "move":
		return wMove
	case "no":
		return wNo
	case "not":
		return wNot
	case "notify":
		return wNotify
	case "offset":
		return wOffset
	case "on":
		return wOn
	case "only":
		return wOnly
	case "operator":
		return wOperator
	case "or":
		return wOr
	case "order":
		return wOrder
	case "over":
		return wOver
	case "prepare":
		return wPrepare
	case "procedure":
		return wProcedure
	case "program":
		return wProgram
	case "reassign":
		return wReassign
	case "refresh":
		return wRefresh
	case "reindex":
		return wReindex
	case "release":
		return wRelease
	case "reset":
		return wReset
	case "returning":
		return wReturning
	case "revoke":
		return wRevoke
	case "rollback":
		return wRollback
	case "savepoint":
		return wSavepoint
	case "security":
		return wSecurity
	case "select":
		return wSelect
	case "set":
		return wSet
	case "share":
		return wShare
	case "show":
		return wShow
	case "start":
		return wStart
	case "table":
		return wTable
	case "then":
		return wThen
	case "to":
		return wTo
	case "truncate":
		return wTruncate
	case "union":
		return wUnion
	case "unlisten":
		return wUnlisten
	case "update":
		return wUpdate
	case "using":
		return wUsing
	case "vacuum":
		return wVacuum
	case "values":
		return wValues
	case "when":
		return wWhen
	case "where":
		return wWhere
	case "with":
		return wWith
	}
	return wNone
}
