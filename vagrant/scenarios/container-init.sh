# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
#
# The only process of a container outgrows the container's limit; once in Docker, once in podman.
# Expect a record for each: the container's name and runtime, its limit, pid 1 in there; the container dies with it.
. ./lib.sh

for runtime in docker podman; do
	name=oom-init-$runtime
	container $runtime $name --memory=40m -- \
		/bin/sh -c "$gate; exec /bin/dd if=/dev/zero of=/dev/null bs=200M count=1"
	id=$(inspect $runtime $name Id)
	expect "victim.pid=$(inspect $runtime $name State.Pid)" victim.comm=dd victim.namespace_pid=1 \
		victim.is_container_init=true incident.scope=memcg \
		limit.level=container "limit.cgroup~$id" limit.limit_bytes=$((40 << 20)) \
		"container.id=$id" container.name=$name container.runtime=$runtime container.image~oomtrace-busybox \
		exit.container_init_died=true
	open_gate $name
	wait_for 60 container_ended $runtime $name
done
