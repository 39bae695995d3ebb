// Package tui holds the terminal screens: the queue of approvals to answer.
//
// A model is state; Update is the only place where it changes; what takes time
// happens in a Cmd that comes back as a message; View is pure. Text from
// outside (statements, reasons, names) is shown with its control characters
// escaped, so that no statement can draw on an approver's screen.
package tui
