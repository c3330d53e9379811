# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
#
# docker stop: the container ignores SIGTERM, and gets SIGKILL when the time is up.  Exit code 137, like after an OOM kill.
# Expect no oom_kill record.
. ./lib.sh

expect_none
container docker oom-stop --memory=40m -- /bin/sh -c 'trap "" TERM; while :; do sleep 1; done'
docker stop --time 1 oom-stop
[ "$(inspect docker oom-stop State.ExitCode)" = 137 ] || fail "exit code $(inspect docker oom-stop State.ExitCode)"
[ "$(inspect docker oom-stop State.OOMKilled)" = false ] || fail "Docker says OOMKilled"
