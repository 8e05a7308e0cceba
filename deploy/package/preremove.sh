#!/bin/sh
# "remove" is dpkg's word for a removal, "0" is rpm's; an upgrade has others.
set -e
case "$1" in
remove | 0)
	[ ! -d /run/systemd/system ] || systemctl disable --now unrestrict-worker.service unrestrict-intake.service
	;;
esac
