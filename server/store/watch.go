package store

import (
	"context"
	"sync"
)

// Change says that a document was written or deleted. Of a deleted one only
// Kind, Name and Version are set.
type Change struct {
	Document
	Deleted bool
}

// watcher holds, for one Watch, what its reader has not taken yet: the last
// change of each name, in order of their first. Memory is bounded by the
// number of documents, and a slow reader never holds up a writer.
type watcher struct {
	kind string
	stop context.CancelFunc

	mu    sync.Mutex
	order []string
	last  map[string]Change
	ready chan struct{} // capacity 1
}

// Watch sends every later change of the kind that this process makes, until
// ctx or the store ends; the channel is then closed. A reader that is slow gets
// the last change of each name only. To miss nothing, watch first, then list.
func (s *Store) Watch(ctx context.Context, kind string) <-chan Change {
	out := make(chan Change)
	ctx, stop := context.WithCancel(ctx)
	w := &watcher{kind: kind, stop: stop, last: map[string]Change{}, ready: make(chan struct{}, 1)}
	s.watchMu.Lock()
	defer s.watchMu.Unlock()
	if s.closed {
		stop()
		close(out)
		return out
	}
	s.watchers[w] = struct{}{}
	s.watching.Go(func() {
		defer close(out)
		defer s.forget(w)
		w.pump(ctx, out)
	})
	return out
}

func (s *Store) forget(w *watcher) {
	s.watchMu.Lock()
	defer s.watchMu.Unlock()
	delete(s.watchers, w)
	w.stop()
}

// tell is called in the writer's turn.
func (s *Store) tell(changes []Change) {
	s.watchMu.Lock()
	defer s.watchMu.Unlock()
	for w := range s.watchers {
		for _, c := range changes {
			if c.Kind == w.kind {
				w.add(c)
			}
		}
	}
}

func (w *watcher) add(c Change) {
	w.mu.Lock()
	if _, waiting := w.last[c.Name]; !waiting {
		w.order = append(w.order, c.Name)
	}
	w.last[c.Name] = c
	w.mu.Unlock()
	select {
	case w.ready <- struct{}{}:
	default: // it has been told already
	}
}

func (w *watcher) take() (Change, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.order) == 0 {
		return Change{}, false
	}
	name := w.order[0]
	w.order = w.order[1:]
	c := w.last[name]
	delete(w.last, name)
	return c, true
}

func (w *watcher) pump(ctx context.Context, out chan<- Change) {
	for {
		c, ok := w.take()
		if !ok {
			select {
			case <-w.ready:
				continue
			case <-ctx.Done():
				return
			}
		}
		select {
		case out <- c:
		case <-ctx.Done():
			return
		}
	}
}
