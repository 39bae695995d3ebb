package postgres

// window collects what goes on to one side between two reads of the other.
// Messages that go on as they came are not copied as long as they lie one
// behind the other in the reader's buffer; only where something is changed,
// left out or put in does the window copy.
//
// Its bytes are out followed by the reader's buf[from:to].
type window struct {
	r        *reader
	from, to int
	out      []byte
	large    *[]byte // backing of out, from the pool
}

// pass puts in the last n bytes that were taken from the reader.
func (w *window) pass(n int) {
	start := w.r.start - n
	if w.to == start && w.to > w.from {
		w.to = w.r.start
		return
	}
	w.fold()
	w.from, w.to = start, w.r.start
}

// add puts in bytes of our own.
func (w *window) add(b []byte) {
	w.fold()
	w.grab()
	w.out = append(w.out, b...)
}

// tail gives the bytes that further ones may be appended to; keep takes them back.
func (w *window) tail() []byte {
	w.fold()
	w.grab()
	return w.out
}

func (w *window) keep(out []byte) { w.out = out }

func (w *window) grab() {
	if w.out == nil {
		w.large = largeBuffers.Get().(*[]byte)
		w.out = (*w.large)[:0]
	}
}

func (w *window) fold() {
	if w.to > w.from {
		w.grab()
		w.out = append(w.out, w.r.buf[w.from:w.to]...)
		w.from, w.to = 0, 0
	}
}

func (w *window) size() int { return len(w.out) + w.to - w.from }

// since returns the bytes from mark on.
func (w *window) since(mark int) []byte {
	if mark >= len(w.out) {
		return w.r.buf[w.from+mark-len(w.out) : w.to]
	}
	w.fold()
	return w.out[mark:]
}

func (w *window) bytes() []byte { return w.since(0) }

// reset empties the window; what it gave is no longer good.
func (w *window) reset() {
	w.from, w.to = 0, 0
	if w.large != nil {
		largeBuffers.Put(w.large)
	}
	w.out, w.large = nil, nil
}
