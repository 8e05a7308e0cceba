package message

// Codes of the worker's own (contract §4).
const (
	CodeIDConflict      = "idConflict"
	CodeExpired         = "expired"
	CodeTooOld          = "tooOld"
	CodeGaveUp          = "gaveUp"
	CodeFateUnknown     = "fateUnknown"
	CodeTrackTimeout    = "trackTimeout"
	CodeActionVanished  = "actionVanished"
	CodeRestrictedAgain = "restrictedAgain"
	CodePolicy          = "policy"
)

// Origins of a Failure.
const (
	OriginRequest  = "request"
	OriginDefender = "defender"
	OriginWorker   = "worker"
)
