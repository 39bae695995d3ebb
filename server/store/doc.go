// Package store keeps the state that must survive the process: logins, grants,
// requests, resources with every version that they had. It knows documents, by
// kind and name, and nothing of what stands in them.
//
// The default is one SQLite file in write-ahead mode with synchronous=FULL:
// when a method returns nil, the change survives kill -9 and a power cut. One
// process at a time may have it open. What a document says is the business of
// the room that wrote it; secrets do not belong here.
package store
