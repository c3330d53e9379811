#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# packages.sh SUITE: what a machine gets from Debian, a package a line: the runtimes of the scenarios, what oomtrace's own
# package depends on, and what it suggests for engine bcc.
set -eu

printf '%s\n' docker.io apparmor podman crun conmon busybox-static systemd-oomd
printf '%s\n' libbpf1 python3 python3-bpfcc python3-typer
# Debian 13 has Docker's client, and podman's networks, in packages of their own; Debian 12 has no orjson.
[ "$1" = bookworm ] || printf '%s\n' docker-cli netavark python3-orjson
