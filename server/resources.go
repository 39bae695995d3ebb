package server

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hoopctl/hoopctl/policy"
	"github.com/hoopctl/hoopctl/server/api"
	"github.com/hoopctl/hoopctl/server/store"
)

// kindResource is the store's kind of resources; names are "Target/clinic".
const kindResource = "resource"

// stored is a resource as the store keeps it.
type stored struct {
	File string `json:"file"` // that it was applied from
	YAML string `json:"yaml"`
}

// inForce is everything that the resources mean, at one moment. Immutable.
type inForce struct {
	set   *policy.Set
	byKey map[string]policy.Resource // "Target/clinic"
	files map[string]string          // key → file that it was applied from
}

// resources holds what the organisation wrote, as it is in force. Reading is
// one atomic load; changes are serialised, compiled whole, and refused whole.
type resources struct {
	mu      sync.Mutex
	store   *store.Store
	current atomic.Pointer[inForce]
}

func resourceKey(kind, name string) string { return kind + "/" + name }

// load compiles what the store holds.
func (r *resources) load(ctx context.Context) error {
	docs, err := r.store.List(ctx, kindResource)
	if err != nil {
		return fmt.Errorf("read resources: %w", err)
	}
	f := &inForce{byKey: map[string]policy.Resource{}, files: map[string]string{}}
	for _, d := range docs {
		res, file, err := unstore(d.Name, d.Body)
		if err != nil {
			return err
		}
		f.byKey[d.Name], f.files[d.Name] = res, file
	}
	if f.set, err = policy.Compile(f.list()); err != nil {
		return fmt.Errorf("the stored resources do not compile: %w", err)
	}
	r.current.Store(f)
	return nil
}

func unstore(key string, body []byte) (policy.Resource, string, error) {
	var s stored
	if err := json.Unmarshal(body, &s); err != nil {
		return policy.Resource{}, "", fmt.Errorf("stored resource %s: %w", key, err)
	}
	name := s.File
	if strings.HasSuffix(name, ".cedar") {
		name += ".yaml" // it is kept as the Policy that it was read as
	}
	list, err := policy.ParseResources(name, []byte(s.YAML))
	if err != nil || len(list) != 1 {
		return policy.Resource{}, "", fmt.Errorf("stored resource %s: %w", key, cmp.Or(err, errors.New("not one document")))
	}
	return list[0], s.File, nil
}

func (f *inForce) list() []policy.Resource {
	out := make([]policy.Resource, 0, len(f.byKey))
	for _, k := range sortedKeys(f.byKey) {
		out = append(out, f.byKey[k])
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// set is the policy set in force.
func (r *resources) set() *policy.Set { return r.current.Load().set }

// get returns one resource.
func (r *resources) get(kind, name string) (policy.Resource, bool) {
	res, ok := r.current.Load().byKey[resourceKey(kind, name)]
	return res, ok
}

// all returns the resources of a kind by name.
func (r *resources) all(kind string) []policy.Resource {
	var out []policy.Resource
	for _, res := range r.current.Load().list() {
		if res.Kind == kind {
			out = append(out, res)
		}
	}
	return out
}

// service is the Service resource of a principal, nil if it has none.
func (r *resources) service(p policy.Principal) *policy.ServiceSpec {
	if p.Kind != policy.Service {
		return nil
	}
	res, ok := r.get(policy.KindService, p.Name)
	if !ok {
		return nil
	}
	spec, _ := res.Spec.(*policy.ServiceSpec)
	return spec
}

// change is one resource's step from what is to what shall be.
type change struct {
	key    string
	action string // created | configured | unchanged | deleted | pruned
	old    []byte // YAML, nil if there was none
	new    []byte // YAML, nil if it goes
	res    policy.Resource
	file   string
}

func (c change) same() bool { return c.action == "unchanged" }

// plan is what applying would do; nothing is changed by it.
type plan struct {
	changes []change
	next    *inForce
}

// planApply parses and compiles. Everything that is wrong is one *api.Error of
// reason Invalid that names file, line and field.
func (r *resources) planApply(a api.Apply) (plan, error) {
	cur := r.current.Load()
	next := &inForce{byKey: clone(cur.byKey), files: clone(cur.files)}
	var p plan
	given, files, err := parseFiles(a.Files)
	if err != nil {
		return plan{}, err
	}
	for _, key := range sortedKeys(given) {
		c, err := stepTo(cur, key, given[key], files[key])
		if err != nil {
			return plan{}, err
		}
		next.byKey[key], next.files[key] = given[key], files[key]
		p.changes = append(p.changes, c)
	}
	if a.Prune {
		p.changes = append(p.changes, prune(cur, next, given, a.Files)...)
	}
	if next.set, err = policy.Compile(next.list()); err != nil {
		return plan{}, invalid("%v", err)
	}
	p.next = next
	return p, nil
}

func clone[V any](m map[string]V) map[string]V {
	out := make(map[string]V, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

func parseFiles(in []api.File) (map[string]policy.Resource, map[string]string, error) {
	given, files := map[string]policy.Resource{}, map[string]string{}
	var problems []error
	for _, f := range in {
		list, err := policy.ParseResources(f.Name, []byte(f.Content))
		if err != nil {
			problems = append(problems, err)
		}
		for _, res := range list {
			key := resourceKey(res.Kind, res.Metadata.Name)
			if other, ok := given[key]; ok {
				problems = append(problems, fmt.Errorf("%s: %s stands in %s already", res.Origin, key, other.Origin))
			}
			given[key], files[key] = res, f.Name
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, nil, invalid("%v", err)
	}
	return given, files, nil
}

func stepTo(cur *inForce, key string, res policy.Resource, file string) (change, error) {
	c := change{key: key, res: res, file: file, action: "created"}
	var err error
	if c.new, err = policy.MarshalResources([]policy.Resource{res}); err != nil {
		return c, invalid("%s: %v", res.Origin, err)
	}
	old, ok := cur.byKey[key]
	if !ok {
		return c, nil
	}
	if c.old, err = policy.MarshalResources([]policy.Resource{old}); err != nil {
		return c, fmt.Errorf("marshal %s: %w", key, err)
	}
	c.action = "configured"
	if bytes.Equal(c.old, c.new) {
		c.action = "unchanged"
	}
	return c, nil
}

// prune drops what was applied from the same files before and stands in them no more.
func prune(cur, next *inForce, given map[string]policy.Resource, files []api.File) []change {
	applied := map[string]bool{}
	for _, f := range files {
		applied[f.Name] = true
	}
	var out []change
	for _, key := range sortedKeys(cur.byKey) {
		if _, ok := given[key]; ok || !applied[cur.files[key]] {
			continue
		}
		delete(next.byKey, key)
		delete(next.files, key)
		out = append(out, gone(cur, key, "pruned"))
	}
	return out
}

func gone(cur *inForce, key, action string) change {
	old, _ := policy.MarshalResources([]policy.Resource{cur.byKey[key]}) // it was marshalled when it was stored
	return change{key: key, action: action, old: old, res: cur.byKey[key]}
}

// planDelete is the plan of deleting one resource.
func (r *resources) planDelete(kind, name string) (plan, error) {
	cur, key := r.current.Load(), resourceKey(kind, name)
	if _, ok := cur.byKey[key]; !ok {
		return plan{}, notFound(strings.ToLower(kind), name)
	}
	next := &inForce{byKey: clone(cur.byKey), files: clone(cur.files)}
	delete(next.byKey, key)
	delete(next.files, key)
	var err error
	if next.set, err = policy.Compile(next.list()); err != nil {
		return plan{}, &api.Error{Reason: api.ReasonConflict, Message: fmt.Sprintf("%s is needed by what remains: %v", key, err)}
	}
	return plan{changes: []change{gone(cur, key, "deleted")}, next: next}, nil
}

// commit stores the plan as one transaction, with what else belongs to it
// (also, may be nil), and puts it in force. record is called for each change
// before anything is stored, so that no change is in force that the evidence
// does not know.
func (r *resources) commit(ctx context.Context, by string, p plan, also func(*store.Tx) error, record func(change, string) error) error {
	for _, c := range p.changes {
		if c.same() {
			continue
		}
		if err := record(c, p.next.set.Digest()); err != nil {
			return err
		}
	}
	err := r.store.Apply(ctx, by, func(tx *store.Tx) error {
		for _, c := range p.changes {
			if err := writeChange(tx, c); err != nil {
				return fmt.Errorf("store %s: %w", c.key, err)
			}
		}
		if also != nil {
			return also(tx)
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.current.Store(p.next)
	return nil
}

func writeChange(tx *store.Tx, c change) error {
	switch {
	case c.same():
		return nil
	case c.new == nil:
		return tx.Delete(kindResource, c.key)
	}
	body, err := json.Marshal(stored{File: c.file, YAML: string(c.new)})
	if err != nil {
		return err
	}
	_, err = tx.Put(kindResource, c.key, body)
	return err
}

// digest names a resource's content in the evidence.
func (c change) digest() string {
	sum := sha256.Sum256(c.new)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// applied is a plan in the words of the API.
func (p plan) applied() api.Applied {
	out := api.Applied{Digest: p.next.set.Digest(), Results: []api.AppliedResource{}}
	for _, c := range p.changes {
		kind, name, _ := strings.Cut(c.key, "/")
		out.Results = append(out.Results, api.AppliedResource{Kind: kind, Name: name, Action: c.action, Diff: diff(c.old, c.new)})
	}
	return out
}

// readFolder reads every .yaml, .yml and .cedar file of a folder, by name.
func readFolder(dir string) ([]api.File, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read resources: %w", err)
	}
	var out []api.File
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if e.IsDir() || ext != ".yaml" && ext != ".yml" && ext != ".cedar" || policy.IsCases(e.Name()) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("read resources: %w", err)
		}
		out = append(out, api.File{Name: e.Name(), Content: string(b)})
	}
	return out, nil
}
