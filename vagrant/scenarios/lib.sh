# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
#
# What the scenarios have in common; each begins with `. ./lib.sh`.  oom-scenario runs them, as root, and compares
# what they expect with what oomtrace wrote.  $SCENARIO_DIR is where they tell it.
set -eu

memory_controller=/sys/fs/cgroup
cgroup=2
if [ -d /sys/fs/cgroup/memory ]; then
	memory_controller=/sys/fs/cgroup/memory
	# shellcheck disable=SC2034 # for the scenarios
	cgroup=1
fi

# expect FIELD=VALUE...: one oom_kill record with these fields; others are free.  Operators: = != >= <= and ~ (a regular
# expression).  exit.FIELD is a field of the oom_exit record that follows it.
expect() {
	printf '%s\n' "$@" '' >>"$SCENARIO_DIR/expected"
}

# expect_sigkill FIELD=VALUE...: one sigkill record with these fields; others may come, too.
expect_sigkill() {
	expect type=sigkill "$@"
}

# The scenario kills, but by no OOM killer of the kernel: no oom_kill record may come.
expect_none() {
	: >>"$SCENARIO_DIR/expected"
}

not_applicable() { # REASON
	echo "$1" >"$SCENARIO_DIR/not_applicable"
	exit 77
}

fail() { # REASON: the scenario itself did not go as intended
	echo "$1" >"$SCENARIO_DIR/failed"
	exit 1
}

# finally COMMAND: run it when the records have been compared.
finally() {
	echo "$1" >>"$SCENARIO_DIR/finally"
}

# wait_for SECONDS COMMAND...
wait_for() {
	end=$(($(date +%s) + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$(date +%s)" -lt $end ] || fail "gave up waiting for: $*"
		sleep 0.2
	done
}

# new_cgroup NAME MIB: a memory cgroup with a limit, at the root, which no manager knows.
new_cgroup() {
	mkdir "$memory_controller/$1"
	finally "rmdir $memory_controller/$1"
	limit=$(($2 << 20))
	if [ $cgroup = 1 ]; then
		echo $limit >"$memory_controller/$1/memory.limit_in_bytes"
		return
	fi
	echo $limit >"$memory_controller/$1/memory.max"
	[ ! -e "$memory_controller/$1/memory.swap.max" ] || echo 0 >"$memory_controller/$1/memory.swap.max"
}

# enter NAME: this shell, and what it starts from now on.
enter() {
	echo 0 >"$memory_controller/$1/cgroup.procs"
}

# unit NAME SETTING... -- COMMAND...: run a transient unit to its end; it is forgotten when the scenario is over.
unit() {
	unit_name=$1
	shift
	finally "systemctl stop $unit_name; systemctl reset-failed $unit_name"
	options=
	while [ "$1" != -- ]; do
		options="$options --property=$1"
		shift
	done
	shift
	systemd-run --quiet --unit="$unit_name" $options -- "$@"
}

show() { # UNIT PROPERTY
	systemctl show --value --property="$2" "$1"
}

unit_ended() { # UNIT
	case $(show "$1" ActiveState) in
	inactive | failed) ;;
	*) return 1 ;;
	esac
}

# What a container's shell waits for, until open_gate: by then the scenario knows its process ids.
# shellcheck disable=SC2034 # for the scenarios
gate='until [ -e /gate/open ]; do sleep 0.2; done'

open_gate() { # CONTAINER
	touch "$SCENARIO_DIR/$1/open"
}

# container RUNTIME NAME OPTION... -- COMMAND...: start one with the image that provision.sh made.
container() {
	runtime=$1 container_name=$2
	shift 2
	mkdir "$SCENARIO_DIR/$container_name"
	"$runtime" rm --force "$container_name" >/dev/null 2>&1 || true
	finally "$runtime rm --force $container_name"
	options=
	while [ "$1" != -- ]; do
		options="$options $1"
		shift
	done
	shift
	"$runtime" run --detach --name "$container_name" --network none \
		--volume "$SCENARIO_DIR/$container_name:/gate" $options localhost/oomtrace-busybox "$@" >/dev/null
}

inspect() { # RUNTIME NAME FIELD
	"$1" inspect --format "{{.$3}}" "$2"
}

container_ended() { # RUNTIME NAME
	[ "$(inspect "$1" "$2" State.Running)" = false ]
}
