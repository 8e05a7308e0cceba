package message

func ShortError(f *Failure) *Failure {
	if f == nil {
		return nil
	}
	short := *f
	short.Message = Shorten(short.Message, MaxMessage)
	return &short
}
