package session

import (
	"cmp"
	"slices"
	"sync"

	"github.com/hoopctl/hoopctl/server/api"
)

// maxMasked bounds what one session's sum keeps apart; each outcome in the
// evidence has its own columns, however many.
const maxMasked = 200

// maskedSum is what a session's answers hid, by column, rule and reason.
type maskedSum struct {
	mu    sync.Mutex
	cells map[api.MaskedColumn]int64 // the key's Cells are 0
}

func (m *maskedSum) add(columns []api.MaskedColumn) {
	if len(columns) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cells == nil {
		m.cells = map[api.MaskedColumn]int64{}
	}
	for _, c := range columns {
		n := c.Cells
		c.Cells = 0
		if _, known := m.cells[c]; !known && len(m.cells) >= maxMasked {
			c = api.MaskedColumn{Column: "others"}
		}
		m.cells[c] += n
	}
}

// list is the sum, the most cells first.
func (m *maskedSum) list() []api.MaskedColumn {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []api.MaskedColumn
	for c, n := range m.cells {
		c.Cells = n
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b api.MaskedColumn) int {
		return cmp.Or(-cmp.Compare(a.Cells, b.Cells), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Source, b.Source), cmp.Compare(a.Method, b.Method),
			cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Why, b.Why), cmp.Compare(a.Tag, b.Tag))
	})
	return out
}
