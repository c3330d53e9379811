// SPDX-License-Identifier: Apache-2.0
// A record -> lines in the format of the kernel log; ? is what the record does not have.

const CONSTRAINTS = { memcg: "CONSTRAINT_MEMCG", cpuset: "CONSTRAINT_CPUSET", mempolicy: "CONSTRAINT_MEMORY_POLICY", host: "CONSTRAINT_NONE", sysrq: "CONSTRAINT_NONE", host_or_nodes: "?" };

function known(value) {
	return value === null ? "?" : String(value);
}

function kb(bytes) {
	return bytes === null ? "?kB" : `${Math.floor(bytes / 1024)}kB`;
}

function kernelLog(records) {
	const { incident, limit, trigger, candidates } = records[0];
	const lines = [];
	if (trigger) {
		const mask = incident.gfp_mask === null ? "?" : `0x${incident.gfp_mask.toString(16)}`;
		const flags = incident.gfp_flags === null ? "" : `(${incident.gfp_flags})`;
		lines.push(`${trigger.comm} invoked oom-killer: gfp_mask=${mask}${flags}, order=${known(incident.order)}`);
	}
	if (limit) {
		const counters = [
			["memory", limit.usage_bytes, limit.limit_bytes, known(limit.failcnt)], ["swap", limit.swap_usage_bytes, limit.swap_limit_bytes, "?"],
			["memory+swap", limit.memsw_usage_bytes, limit.memsw_limit_bytes, "?"],
		];
		for (const [name, usage, bound, failed] of counters) {
			if (usage !== null || bound !== null) lines.push(`${name}: usage ${kb(usage)}, limit ${kb(bound)}, failcnt ${failed}`);
		}
		if (limit.breakdown) {
			lines.push(`Memory cgroup stats for ${known(limit.cgroup)}:`);
			for (const [name, bytes] of Object.entries(limit.breakdown)) if (bytes !== null) lines.push(`${name.replace(/_bytes$/, "")} ${bytes}`);
		}
	}
	if (candidates) {
		lines.push("Tasks that were scored highest:");
		for (const task of candidates) {
			const points = task.points === null ? "" : `, ${task.points} points`;
			lines.push(`[${String(task.pid).padStart(7)}] rss ${kb(task.rss_bytes)}, oom_score_adj ${known(task.oom_score_adj)}${points}, ${task.comm}`);
		}
	}
	for (const record of records) lines.push(...killLines(record, record === records[0]));
	return lines.map(printable);
}

function killLines({ incident, limit, victim }, first) {
	const lines = [];
	if (first && incident.scope && CONSTRAINTS[incident.scope]) {
		const where = limit ? `oom_memcg=${known(limit.cgroup)}` : "global_oom";
		lines.push(`oom-kill:constraint=${CONSTRAINTS[incident.scope]},nodemask=(null),${where},task_memcg=${known(victim.cgroup)},task=${known(victim.comm)},pid=${known(victim.pid)},uid=${known(victim.uid)}`);
	}
	const sizes = [["total-vm", victim.total_vm_bytes], ["anon-rss", victim.anon_rss_bytes], ["file-rss", victim.file_rss_bytes], ["shmem-rss", victim.shmem_rss_bytes]];
	const message = incident.message === null ? "" : `${incident.message}: `;
	lines.push(`${message}Killed process ${victim.tid} (${known(victim.comm)}) ${sizes.map(([name, bytes]) => `${name}:${kb(bytes)}`).join(", ")}, UID:${known(victim.uid)} pgtables:${kb(victim.page_tables_bytes)} oom_score_adj:${known(victim.oom_score_adj)}`);
	return lines;
}
