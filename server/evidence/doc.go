// Package evidence keeps the append-only, tamper-evident record of what the
// broker did, and checks such a record without trusting the broker.
//
// # What lies where
//
// A folder holds one log of one node:
//
//	log/00000001.log      the timeline: one small leaf per event, group-committed
//	frames/00000001.log   the recordings: encrypted frames of all sessions
//	tile/…                the RFC 6962 tree over the leaves, as C2SP tlog-tiles
//	checkpoint            the tree's head, signed (C2SP checkpoint, signed note)
//	keys/SESSION.key      a session's identity, wrapped to the auditors' recipients
//	sealed/…              recordings that are over, as age files of zstd frames
//	rotation/…            changes of the log's key
//	index.db              the search index; derived, may be deleted at any time
//	evidence.lock         held by the server that writes
//
// Only *.db, *.key and *.lock may change without [Verify] saying so. A key is
// deleted to shred its session's recording; what is sealed shrinks to digests in
// frames/; everything else is only appended.
//
// # How a record becomes durable
//
// [Log.Append] and [Recording.Frame] copy into the pending batch and return a
// ticket; they do no I/O. One committer goroutine writes the batch with its
// mark to both logs, calls fdatasync, and releases all tickets up to the
// batch's last. What arrives meanwhile is the next batch. [Log.Wait] blocks
// until a ticket is durable. Hashing, tiles, checkpoints and the index follow
// behind and are never waited for by a session.
//
// When a write fails the log fails closed: every ticket that is not durable,
// and every call from then on, gets an error, until a new segment could be
// written; its first leaf is a gap that says from when and why.
//
// # Who can read what
//
// The timeline holds no value of a target's data. Payloads are compressed and
// encrypted with a key per session that the server forgets; see [Recording].
// [Verify] and [ReadSession] run where the reader is, over a [Source] of files
// that may come from a folder or from the server's API.
package evidence
