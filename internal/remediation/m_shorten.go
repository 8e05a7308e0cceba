package remediation

func shortError(f *Failure) *Failure {
	if f == nil {
		return nil
	}
	short := *f
	short.Message = shorten(short.Message, maxMessage)
	return &short
}
