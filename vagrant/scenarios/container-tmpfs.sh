# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
#
# A container writes 100 MiB into its tmpfs, which counts against its limit of 40 MiB; once in Docker, once in podman.
# Expect a record for each: a small victim, and limit.breakdown.shmem_bytes that tells what filled the limit.
. ./lib.sh

for runtime in docker podman; do
	name=oom-tmpfs-$runtime
	container $runtime $name --memory=40m --tmpfs=/scratch:size=200m -- \
		/bin/sh -c "$gate; exec /bin/dd if=/dev/zero of=/scratch/file bs=64k count=1600"
	expect "victim.pid=$(inspect $runtime $name State.Pid)" victim.comm=dd "victim.rss_bytes<=$((8 << 20))" \
		incident.scope=memcg limit.level=container limit.limit_bytes=$((40 << 20)) \
		"limit.breakdown.shmem_bytes>=$((30 << 20))" container.name=$name container.runtime=$runtime
	open_gate $name
	wait_for 60 container_ended $runtime $name
done
