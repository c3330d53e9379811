# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
#
# Like a JVM, a service reserves 8 GiB of address space and uses little of it, but more than its limit of 64 MiB.
# Expect one record: virtual size and resident size apart, the virtual one more than a hundred times the limit.
. ./lib.sh

folder=$(mktemp -d)
finally "rm -r $folder"
ln -s "$(command -v oom-hog)" "$folder/java"
unit oom-jvm.service MemoryMax=64M MemorySwapMax=0 -- "$folder/java" --reserve 8192 100
pid=$(show oom-jvm.service ExecMainPID)
expect "victim.pid=$pid" victim.comm=java incident.scope=memcg limit.level=unit limit.limit_bytes=$((64 << 20)) \
	"victim.total_vm_bytes>=$((8 << 30))" "victim.rss_bytes<=$((80 << 20))" systemd.unit=oom-jvm.service
wait_for 60 unit_ended oom-jvm.service
