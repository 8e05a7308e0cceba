package config

// SettingsFrom is the defaults with some variables set, and nothing of this process's environment.
func SettingsFrom(variables map[string]string) (Settings, error) {
	var environ []string
	for name, value := range variables {
		environ = append(environ, name+"="+value)
	}
	settings, mistakes := NewTable().Load(Given{Environ: environ})
	if len(mistakes) > 0 {
		return Settings{}, BadConfiguration(mistakes)
	}
	return settings, nil
}
