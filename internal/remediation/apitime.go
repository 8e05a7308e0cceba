package remediation

import "time"

// apiTime is a time that the API's clock has certainly passed by now, less a margin. While the API's clock was never
// measured, it is our own time less a wide margin.
func (p *attempt) apiTime() time.Time {
	earliest, _, measured := p.Defender.Clock()
	if !measured {
		return earliest.Add(-wideMargin).UTC()
	}
	return earliest.Add(-clockMargin).UTC()
}

func (p *attempt) clockKnown() bool {
	_, _, measured := p.Defender.Clock()
	return measured
}

// callByAPI is apiTime as of the latest call.
func (p *attempt) callByAPI() time.Time {
	return p.apiTime().Add(time.Until(p.e.LastCall))
}

const (
	clockMargin = 2 * time.Second
	wideMargin  = 10 * time.Minute
)
