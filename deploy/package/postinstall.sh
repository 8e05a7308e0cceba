#!/bin/sh
# Nothing is started: no tenant is configured yet. After an upgrade the old process keeps running until the operator
# restarts it, at a time of their choice.
set -e
[ ! -d /run/systemd/system ] || systemctl daemon-reload
