# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
#
# docker stop: the container ignores SIGTERM, and gets SIGKILL when the time is up.  Exit code 137, like after an OOM kill.
# Expect no oom_kill record, and a sigkill record that names the container and what Docker killed it by.
. ./lib.sh

expect_none
container docker oom-stop --memory=40m -- /bin/sh -c 'trap "" TERM; while :; do sleep 1; done'
expect_sigkill "victim.pid=$(inspect docker oom-stop State.Pid)" victim.is_container_init=true \
	container.name=oom-stop container.runtime=docker 'sender.comm~^(runc|containerd-shim|dockerd)' sender.container=null
docker stop --time 1 oom-stop
[ "$(inspect docker oom-stop State.ExitCode)" = 137 ] || fail "exit code $(inspect docker oom-stop State.ExitCode)"
[ "$(inspect docker oom-stop State.OOMKilled)" = false ] || fail "Docker says OOMKilled"
