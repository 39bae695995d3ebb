package api

import (
	"fmt"
	"net/url"
	"strconv"
	"time"
)

// Values writes a query as the parameters of PathEvents. Zero fields are left out.
func (q EventQuery) Values() url.Values {
	v := url.Values{}
	for _, k := range q.Kind {
		v.Add("kind", k)
	}
	for name, p := range q.texts() {
		if *p != "" {
			v.Set(name, *p)
		}
	}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.UTC().Format(time.RFC3339Nano))
	}
	if !q.Until.IsZero() {
		v.Set("until", q.Until.UTC().Format(time.RFC3339Nano))
	}
	if q.After != 0 {
		v.Set("after", strconv.FormatUint(q.After, 10))
	}
	if q.Limit != 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Descending {
		v.Set("descending", "1")
	}
	return v
}

// texts are the fields that are plain words, by the parameter's name.
func (q *EventQuery) texts() map[string]*string {
	return map[string]*string{
		"principal": &q.Principal, "target": &q.Target, "table": &q.Table, "tag": &q.Tag,
		"verdict": &q.Verdict, "session": &q.Session, "request": &q.Request,
		"grant": &q.Grant, "approver": &q.Approver,
	}
}

// ParseEventQuery reads what Values wrote. A parameter that it does not know is
// an error, so that a misspelt filter never widens an answer; "watch" is the
// caller's.
func ParseEventQuery(v url.Values) (EventQuery, error) {
	var q EventQuery
	texts := q.texts()
	for name := range v {
		if p, ok := texts[name]; ok {
			*p = v.Get(name)
			continue
		}
		if err := q.parse(name, v); err != nil {
			return EventQuery{}, err
		}
	}
	return q, nil
}

func (q *EventQuery) parse(name string, v url.Values) (err error) {
	value := v.Get(name)
	switch name {
	case "watch":
	case "kind":
		q.Kind = v[name]
	case "since":
		q.Since, err = time.Parse(time.RFC3339Nano, value)
	case "until":
		q.Until, err = time.Parse(time.RFC3339Nano, value)
	case "after":
		q.After, err = strconv.ParseUint(value, 10, 64)
	case "limit":
		q.Limit, err = strconv.Atoi(value)
		if err == nil && q.Limit < 0 {
			err = fmt.Errorf("negative")
		}
	case "descending":
		q.Descending, err = strconv.ParseBool(value)
	default:
		return fmt.Errorf("unknown parameter %q", name)
	}
	if err != nil {
		return fmt.Errorf("parameter %s=%q: %w", name, value, err)
	}
	return nil
}
