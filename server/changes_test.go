package server_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hoopctl/hoopctl/client"
	"github.com/hoopctl/hoopctl/server"
	"github.com/hoopctl/hoopctl/server/api"
)

// secondPerson is the rule of the starter set for HIPAA.
const secondPerson = `@id("second-person") @reason("a second admin looks at every change of the rules") @approve("admins")
forbid(principal, action == Hoop::Action::"manage", resource) unless { context.approvals.contains("second-person/admins:1") };`

// extra is one more policy, whose change is asked for here.
func extra(name, class string) []api.File {
	return []api.File{{Name: name + ".cedar", Content: `@id("` + name + `") permit(principal in Hoop::Group::"engineers", action == Hoop::Action::"` + class + `", resource in Hoop::Label::"env=dev");`}}
}

// twoAdmins is a house in which changes of resources wait for a second admin.
func twoAdmins(t *testing.T) (h *house, erin, frank *client.Client) {
	t.Helper()
	h = newHouse(t)
	erin, frank = h.as("erin"), h.as("frank")
	done, err := erin.Apply(t.Context(), api.Apply{Files: []api.File{{Name: "second.cedar", Content: secondPerson}}})
	if err != nil || done.Request != nil {
		t.Fatalf("%+v, %v", done, err)
	}
	return h, erin, frank
}

// ask applies a change that must wait, and returns its request.
func ask(t *testing.T, c *client.Client, a api.Apply) api.Request {
	t.Helper()
	held, err := c.Apply(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	if held.Request == nil || held.Request.Status.Phase != "pending" || held.Request.Spec.Kind != "change" {
		t.Fatalf("it does not wait: %+v", held)
	}
	return *held.Request
}

func agree(t *testing.T, c *client.Client, name string, yes bool) {
	t.Helper()
	r, err := c.Request(t.Context(), name)
	if err == nil {
		_, err = c.Answer(t.Context(), r, yes, "looked at it")
	}
	if err != nil {
		t.Fatal(err)
	}
}

func has(t *testing.T, c *client.Client, name string) bool {
	t.Helper()
	_, err := c.Resource(t.Context(), "Policy", name)
	var e *api.Error
	if err != nil && !(errors.As(err, &e) && e.Reason == api.ReasonNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

func reasonFor(err error) api.Reason {
	var e *api.Error
	errors.As(err, &e)
	if e == nil {
		return ""
	}
	return e.Reason
}

func TestChangeWaitsForASecondPerson(t *testing.T) {
	h, erin, frank := twoAdmins(t)
	want := api.Apply{Files: extra("exports", "export"), Reason: "CHG-81"}
	dry := want
	dry.DryRun = true
	if would, err := erin.Apply(t.Context(), dry); err != nil || len(would.Needs) != 1 || would.Needs[0].Group != "admins" || would.Request != nil {
		t.Errorf("a dry run says %+v, %v", would, err)
	}
	r := ask(t, erin, want)
	if has(t, erin, "exports") {
		t.Fatal("it is in force before anyone agreed")
	}
	if again := ask(t, erin, want); again.Metadata.Name != r.Metadata.Name {
		t.Errorf("asking the same again opened %s beside %s", again.Metadata.Name, r.Metadata.Name)
	}
	if _, err := erin.Apply(t.Context(), api.Apply{Resume: r.Metadata.Name}); reasonFor(err) != api.ReasonPending {
		t.Errorf("resumed before anyone agreed: %v", err)
	}
	if _, err := erin.Answer(t.Context(), r, true, "me"); err == nil {
		t.Fatal("erin agreed to her own change")
	}
	shown, err := frank.Request(t.Context(), r.Metadata.Name)
	if err != nil || !strings.HasPrefix(shown.Spec.Statement, "policy/exports created\n+apiVersion: hoopctl/v1\n") || !strings.Contains(shown.Spec.Statement, `Hoop::Action::"export"`) || shown.Spec.Reason != "CHG-81" {
		t.Errorf("frank is shown %+v, %v", shown, err)
	}
	if _, err := frank.Apply(t.Context(), api.Apply{Resume: r.Metadata.Name}); reasonFor(err) != api.ReasonNotFound {
		t.Errorf("another one resumes: %v", err)
	}
	agree(t, frank, r.Metadata.Name, true)
	for range 2 { // asked twice, made once
		done, err := erin.Apply(t.Context(), api.Apply{Resume: r.Metadata.Name})
		if err != nil || len(done.Results) != 1 || done.Results[0].Action != "created" || done.Request != nil {
			t.Fatalf("%+v, %v", done, err)
		}
	}
	if !has(t, erin, "exports") {
		t.Error("it is not in force")
	}
	events, err := h.as("dave").Events(t.Context(), api.EventQuery{Kind: []string{api.EventResource}, Request: r.Metadata.Name})
	if err != nil || len(events) != 1 {
		t.Fatalf("%d resource leaves: %+v, %v", len(events), events, err)
	}
	if e := events[0]; e.Principal != "dev:erin" || e.Object != "Policy/exports" || len(e.Approvals) != 1 || e.Approvals[0].By != "dev:frank" || e.Approvals[0].Rule != "second-person" {
		t.Errorf("the evidence says %+v", e)
	}
	if done, err := erin.Apply(t.Context(), want); err != nil || done.Request != nil || done.Results[0].Action != "unchanged" {
		t.Errorf("what changes nothing waits: %+v, %v", done, err)
	}
}

func TestChangeIsBoundToWhatWasShown(t *testing.T) {
	_, erin, frank := twoAdmins(t)
	mine, theirs := ask(t, erin, api.Apply{Files: extra("exports", "export")}), ask(t, frank, api.Apply{Files: extra("ddl", "schema")})
	agree(t, erin, theirs.Metadata.Name, true)
	if _, err := frank.Apply(t.Context(), api.Apply{Resume: theirs.Metadata.Name}); err != nil {
		t.Fatal(err)
	}
	// The set is another one now: what frank was shown of erin's change is no longer what it would be.
	r, err := erin.AwaitRequest(t.Context(), mine.Metadata.Name)
	if err != nil || r.Status.Phase != "withdrawn" || !strings.Contains(r.Status.Reason, "have changed") {
		t.Errorf("%+v, %v", r.Status, err)
	}
	if _, err := erin.Apply(t.Context(), api.Apply{Resume: mine.Metadata.Name}); reasonFor(err) != api.ReasonWithdrawn {
		t.Errorf("%v", err)
	}
	if has(t, erin, "exports") || !has(t, erin, "ddl") {
		t.Error("the wrong one is in force")
	}
}

func TestChangeThatIsDenied(t *testing.T) {
	_, erin, frank := twoAdmins(t)
	r := ask(t, erin, api.Apply{Files: extra("exports", "export")})
	agree(t, frank, r.Metadata.Name, false)
	if _, err := erin.Apply(t.Context(), api.Apply{Resume: r.Metadata.Name}); reasonFor(err) != api.ReasonDenied {
		t.Errorf("%v", err)
	}
	if has(t, erin, "exports") {
		t.Error("it is in force")
	}
}

// A change outlives who asked for it and the server; deletions are changes.
func TestChangeIsMadeAfterARestart(t *testing.T) {
	h, erin, _ := twoAdmins(t)
	held, err := erin.DeleteResource(t.Context(), "Policy", "everywhere", "CHG-82")
	if err != nil || held.Request == nil {
		t.Fatalf("%+v, %v", held, err)
	}
	name := held.Request.Metadata.Name
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	h.adjust = func(c *server.Config) { c.ResourceFiles = nil } // which would bring it back
	h.start()
	erin, frank := h.as("erin"), h.as("frank")
	shown, err := frank.Request(t.Context(), name)
	if err != nil || !strings.HasPrefix(shown.Spec.Statement, "policy/everywhere deleted\n-apiVersion") {
		t.Fatalf("%+v, %v", shown, err)
	}
	agree(t, frank, name, true)
	for late := time.Now().Add(20 * time.Second); has(t, erin, "everywhere"); {
		if time.Now().After(late) {
			t.Fatal("what was agreed to is not done")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if done, err := erin.Apply(t.Context(), api.Apply{Resume: name}); err != nil || done.Results[0].Action != "deleted" {
		t.Errorf("%+v, %v", done, err)
	}
}
