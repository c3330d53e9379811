# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
#
# A slice named like a Kubernetes pod's has a limit of 60 MiB above two containers; the larger one may use 100 MiB itself.
# Expect one record: the limit is the pod's, the victim is in the larger container, with the pod's uid and QoS class.
. ./lib.sh

uid=2c48913c-b29f-11e7-9350-020968147796
slice=kubepods-burstable-pod$(echo $uid | tr - _).slice
finally "systemctl stop kubepods.slice; systemctl revert $slice"
systemctl set-property --runtime "$slice" MemoryMax=60M
container podman oom-pod-small "--cgroup-parent=$slice" -- /bin/sleep 1000
container podman oom-pod-large "--cgroup-parent=$slice" --memory=100m -- \
	/bin/sh -c "$gate; exec /bin/dd if=/dev/zero of=/dev/null bs=200M count=1"
expect "victim.pid=$(inspect podman oom-pod-large State.Pid)" victim.comm=dd incident.scope=memcg \
	limit.level=pod "limit.cgroup=/kubepods.slice/kubepods-burstable.slice/$slice" limit.limit_bytes=$((60 << 20)) \
	container.name=oom-pod-large kubernetes.pod_uid=$uid kubernetes.qos_class=Burstable
open_gate oom-pod-large
wait_for 60 container_ended podman oom-pod-large
[ "$(inspect podman oom-pod-small State.Running)" = true ] || fail "the small container died, too"
