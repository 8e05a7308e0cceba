package cli

// examples are command lines to copy, by the path of their command. TestHelpExamples checks them against the program.
func examples() map[string][]string {
	return map[string][]string{
		"run": {
			"worker run",
			"NATS_URL=tls://nats.contoso.com:4222 NATS_CREDS=worker.creds worker run --defender-auth=workload-identity",
		},
		"demo":     {"worker demo", "worker demo --stay"},
		"simulate": {"worker simulate", "worker simulate --tls --machines machines.csv --role Machine.RestrictExecution --set duplicate=201"},
		"submit": {
			`worker submit --machine 1e5bc9d7e413ddd7902c2932e418702b84d0cc07 --comment "Cleaned and validated" --ticket INC-4711 --lane urgent --wait`,
			"worker submit --file machines.csv --batch monday --canary 10 --halt-on 5% --wait --report out.csv",
		},
		"batch list": {"worker batch list", "worker batch list --json"},
		"batch show": {"worker batch show monday", "worker batch show monday --json"},
		"results": {
			"worker results --since 2d --outcome failed,rejected",
			"worker results --batch monday --follow=false --json",
		},
		"deadletter list":   {"worker deadletter list", "worker deadletter list --code gaveUp --json"},
		"deadletter show":   {"worker deadletter show INC-4711-1", "worker deadletter show --seq 7 --json"},
		"deadletter replay": {"worker deadletter replay INC-4711-1", "worker deadletter replay --code gaveUp"},
		"deadletter drop":   {"worker deadletter drop INC-4711-1", "worker deadletter drop --code malformed --yes"},
		"audit verify":      {"worker audit verify", "worker audit verify --file trail.jsonl --heads heads.json"},
		"audit export":      {"worker audit export --out trail.jsonl", "worker audit export --since 2d"},
		"status":            {"worker status", "worker status --json"},
		"pause":             {`worker pause --reason "change freeze until Monday"`, "worker pause --reason CHG-42 --nats-url nats://nats.contoso.com:4222"},
		"resume":            {"worker resume", `worker resume --closure --reason "Retry-After was a time"`},
		"cancel":            {`worker cancel INC-4711-1 --reason "wrong machine"`, `worker cancel --batch monday --reason "wrong list" --actions`},
		"batch pause":       {`worker batch pause monday --reason "the first rows fail"`, "worker batch pause monday --sign-with ops.nk"},
		"batch resume":      {"worker batch resume monday", `worker batch resume monday --reason "the list is right"`},
		"approvals":         {"worker approvals", "worker approvals --batch monday --json"},
		"approve":           {`worker approve INC-4711-1 --reason "scan is clean" --sign-with ann.nk`, "worker approve --file machines.csv --batch monday --reason checked --sign-with ann.nk"},
		"deny":              {`worker deny INC-4711-1 --reason "still dirty" --sign-with ann.nk`, "worker deny INC-4711-1 --signed-by soar --reason CHG-42 --sign-with ann.nk"},
		"intake":            {"worker intake", "worker intake --intake-addr 127.0.0.1:9090 --intake-clients-file clients.yaml"},
		"check":             {"worker check", "worker check --config worker.yaml"},
		"schema":            {"worker schema request", "worker schema asyncapi"},
		"why":               {"worker why INC-4711-1", "worker why REMEDIATION:42 --json"},
		"help":              {"worker help submit", "worker help settings"},
		"healthcheck":       {"worker healthcheck", "worker healthcheck --admin-addr 127.0.0.1:9090"},
		"completion":        {"source <(worker completion bash)", "worker completion fish | source"},
		"version":           {"worker version", "worker version --json"},
	}
}
