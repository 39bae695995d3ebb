package api

// Paths of the API. {…} are path values of net/http's ServeMux.
const (
	PathInfo          = "/v1/info"                     // GET → Info; no certificate
	PathEnroll        = "/v1/enroll"                   // POST Enroll → Enrolled; no certificate: an ID token and a CSR
	PathRenew         = "/v1/renew"                    // POST Enroll → Enrolled; no certificate: the login's own key proves itself by the CSR
	PathWhoami        = "/v1/whoami"                   // GET → Whoami
	PathLogout        = "/v1/logout"                   // POST → 204
	PathTargets       = "/v1/targets"                  // GET → List[Target]
	PathGrants        = "/v1/grants"                   // GET → List[Grant]; POST GrantRequest → GrantAnswer
	PathGrant         = "/v1/grants/{name}"            // GET → Grant; DELETE ?reason= → Revoked
	PathRequests      = "/v1/requests"                 // GET → List[Request]
	PathRequest       = "/v1/requests/{name}"          // GET → Request; DELETE withdraws
	PathAnswer        = "/v1/requests/{name}/answer"   // POST Answer → Request
	PathSessions      = "/v1/sessions"                 // GET → List[Session]
	PathSession       = "/v1/sessions/{name}"          // GET → Session; DELETE ?reason= ends it
	PathShred         = "/v1/sessions/{name}/shred"    // POST Shred → Shredding
	PathExplain       = "/v1/explain"                  // POST Explain → Explained
	PathSecrets       = "/v1/secrets"                  // POST SecretRequest → Secret
	PathApply         = "/v1/apply"                    // POST Apply → Applied
	PathResources     = "/v1/resources/{kind}"         // GET → List[Resource]
	PathResource      = "/v1/resources/{kind}/{name}"  // GET → Resource; DELETE
	PathReplay        = "/v1/policy/replay"            // POST Replay → Replayed
	PathLearn         = "/v1/policy/learn"             // POST Learn → Learned
	PathFired         = "/v1/policy/fired"             // GET ?since=TIME → Fired
	PathBudgets       = "/v1/policy/budgets"           // GET ?policy=NAME → List[BudgetUse]
	PathObserved      = "/v1/policy/observed"          // GET ?target=NAME&since=TIME → Observed
	PathEvents        = "/v1/evidence/events"          // GET ?… (EventQuery) → List[Event]
	PathCheckpoint    = "/v1/evidence/checkpoint"      // GET → signed note, text/plain
	PathEvidenceFiles = "/v1/evidence/files"           // GET → EvidenceFiles: names and sizes
	PathEvidenceFile  = "/v1/evidence/files/{path...}" // GET → the bytes, Range allowed
)

// Headers of the API.
const (
	// HeaderRequestID comes back with every answer and stands in every Error.
	HeaderRequestID = "Hoopctl-Request-Id"
)
