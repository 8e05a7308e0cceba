package main

import (
	"example.com/unrestrict-worker/internal/config"
)

// settingsFrom is the defaults with some variables set, and nothing of this process's environment.
func settingsFrom(variables map[string]string) (config.Settings, error) {
	var environ []string
	for name, value := range variables {
		environ = append(environ, name+"="+value)
	}
	settings, mistakes := config.NewTable().Load(config.Given{Environ: environ})
	if len(mistakes) > 0 {
		return config.Settings{}, badConfiguration(mistakes)
	}
	return settings, nil
}
