#!/bin/sh
# Nothing is started: there is no tenant to start it for yet. After an upgrade the old process goes on until it is
# restarted, which is the operator's to time.
set -e
[ ! -d /run/systemd/system ] || systemctl daemon-reload
