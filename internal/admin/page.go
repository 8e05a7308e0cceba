package admin

import (
	"bytes"
	"context"
	"html/template"
	"time"

	"go.uber.org/zap"
)

// page renders one fragment for all viewers, so that the worker and the broker
// are read once a tick, with any number of viewers.
type page struct {
	src    Sources
	level  *zap.AtomicLevel
	limits *limits
	tmpl   *template.Template

	rendering chan struct{} // guards the fields below
	at        time.Time
	last      rendered
}

type rendered struct {
	title string
	html  []byte
}

func newPage(src Sources, level *zap.AtomicLevel, l *limits) (*page, error) {
	tmpl, err := template.New("page").Funcs(template.FuncMap{
		"num": number, "text": text, "whole": Printable, "series": seriesOf, "mode": ModeText, "prose": prose,
	}).ParseFS(assets, "assets/*.html")
	if err != nil {
		return nil, err
	}
	return &page{src: src, level: level, limits: l, tmpl: tmpl, rendering: make(chan struct{}, 1)}, nil
}

// full returns the whole page around the fragment, with what was searched for; nil: nothing.
func (p *page) full(ctx context.Context, found *search) ([]byte, error) {
	r, err := p.render(ctx)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = p.tmpl.ExecuteTemplate(&out, "page.html", map[string]any{
		"Title": r.title,
		"Main":  template.HTML(r.html), //nolint:gosec // html/template made it just now
		"At":    time.Now().UTC(),
		"Found": found,
	})
	return out.Bytes(), err
}

// render returns the content of the page's main element. It does not contain the
// current time: as long as nothing happens it stays the same to the byte.
func (p *page) render(ctx context.Context) (rendered, error) {
	select {
	case p.rendering <- struct{}{}:
		defer func() { <-p.rendering }()
	case <-ctx.Done():
		return rendered{}, ctx.Err()
	}
	if time.Since(p.at) < p.limits.tick*9/10 { // less than the tick of a single viewer
		return p.last, nil
	}
	v := p.gather(ctx)
	if ctx.Err() != nil { // this viewer has gone; the errors that this caused are not for the others
		return rendered{}, ctx.Err()
	}
	var out bytes.Buffer
	if err := p.tmpl.ExecuteTemplate(&out, "fragment.html", v); err != nil {
		return rendered{}, err
	}
	p.at, p.last = time.Now(), rendered{title: v.Title(), html: out.Bytes()}
	return p.last, nil
}
