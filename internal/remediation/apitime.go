package remediation

import "time"

// apiTime is a time that the API's clock has passed for certain by now, less a margin; our own less a wide one while the
// API's was never measured.
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
