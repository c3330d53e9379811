# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
#
# A child of the container's init outgrows the container's limit; the init lives on.  Once in Docker, once in podman.
# Expect a record for each: the container's name, the init as the parent; and that the container did not die.
. ./lib.sh

for runtime in docker podman; do
	name=oom-child-$runtime
	container $runtime $name --memory=40m -- \
		/bin/sh -c "$gate; /bin/dd if=/dev/zero of=/dev/null bs=200M count=1; exec /bin/sleep 1000"
	init=$(inspect $runtime $name State.Pid)
	id=$(inspect $runtime $name Id)
	expect victim.comm=dd "victim.ppid=$init" victim.is_container_init=false incident.scope=memcg \
		limit.level=container "limit.cgroup~$id" limit.limit_bytes=$((40 << 20)) \
		"container.id=$id" container.name=$name container.runtime=$runtime exit.container_init_died=false
	open_gate $name
	ended() {
		[ "$(cat "/proc/$init/comm")" = sleep ]
	}
	wait_for 60 ended
	[ "$(inspect $runtime $name State.Running)" = true ] || fail "$name died"
done
