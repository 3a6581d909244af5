#!/bin/sh
# Written by `lethe export aws`.
set -eu

cat >/etc/systemd/system/lethe.service <<'UNIT'
[Unit]
Description=lethe
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
NotifyAccess=all
WorkingDirectory=/srv/app
# Secrets, as NAME=value lines, put there by the image or by what fetches them.
EnvironmentFile=-/etc/lethe/env
ExecStart=/usr/local/bin/lethe up /srv/app --listen 0.0.0.0:8080 --state-dir /var/lib/lethe
ExecReload=/usr/local/bin/lethe reload --state-dir /var/lib/lethe
StateDirectory=lethe
# Workers get cgroups of their own, for their limits.
Delegate=yes
KillMode=mixed
TimeoutStopSec=30
Restart=always

[Install]
WantedBy=multi-user.target
UNIT

systemctl daemon-reload
systemctl enable --now lethe
