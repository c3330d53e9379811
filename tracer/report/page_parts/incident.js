// SPDX-License-Identifier: Apache-2.0
// One incident: facts, candidates, memory by kind, history, neighbouring incidents, log.

const NEAR_MS = 60000;
const MOST_NEAR = 8;
const MOST_VICTIMS = 50;
const title = document.getElementById("incident-title");
const body = document.getElementById("incident-body");
let currentIncident = -1;

function showIncident(number) {
	if (number === currentIncident && body.firstChild) return;
	currentIncident = number;
	if (number < 0) {
		title.textContent = "No incident selected";
		body.replaceChildren();
		return;
	}
	const incident = incidentOf(number);
	const record = incident.records[0];
	title.textContent = incident.said[0];
	body.replaceChildren(...[
		steps(), facts(incident, number), otherVictims(incident), candidateChart(incident), breakdownChart(incident, record),
		family(record.victim), regularityOf(number), nearBy(number), logView(incident), jsonView(number),
	].flat().filter(Boolean));
}

function steps() {
	const button = (text, act) => {
		const made = el("button", { type: "button" }, text);
		made.addEventListener("click", act);
		return made;
	};
	return el("div", { className: "buttons" },
		button("Newer", () => choose(chosen - 1)), button("Older", () => choose(chosen + 1)), button("Back to the list", () => list.focus()));
}

function facts({ records, exits, role, sinceBoot }, number) {
	const record = records[0], { victim, trigger, limit, container, kubernetes, systemd, incident } = record;
	const name = (value) => (value === null || value === undefined ? null : printable(value));
	const coded = (value) => (value === null || value === undefined ? null : el("code", {}, printable(value)));
	const asked = trigger && (trigger.pid !== null && trigger.pid === victim.pid ? "the victim itself" :
		printable(`${trigger.comm}${trigger.pid === null ? "" : ` (pid ${trigger.pid})`}${trigger.cgroup && trigger.cgroup !== victim.cgroup ? `, in ${trigger.cgroup}` : ""}`));
	const request = incident.order === null && incident.gfp_flags === null ? null :
		[incident.order === null ? null : incident.order < 0 ? null : count(2 ** incident.order, "page"), incident.gfp_flags].filter(Boolean).join(", ");
	const pairs = [
		["Time", record.time === null ? sinceBoot || "unknown" : `${printable(record.time.replace("T", " ").replace("Z", ""))} UTC`],
		["Node", name(record.host.name)],
		["Node labels", record.host.labels && Object.entries(record.host.labels).map(([key, value]) => printable(`${key}=${value}`)).join(", ")],
		["Container", container && [container.name || container.id.slice(0, 12), container.runtime].filter(Boolean).map(printable).join(", ")],
		["Image", container && name(container.image)],
		["Pod", kubernetes && [kubernetes.namespace, kubernetes.pod_name, kubernetes.container_name].filter(Boolean).map(printable).join(" / ")],
		["Unit", systemd && name(systemd.unit)],
		["Process", printable(`${victim.comm === null ? "?" : victim.comm}, pid ${victim.pid === null ? victim.tid : victim.pid}${victim.uid === null ? "" : `, uid ${victim.uid}`}${victim.oom_score_adj === null ? "" : `, oom_score_adj ${victim.oom_score_adj}`}`)],
		["Command line", victim.cmdline && coded(victim.cmdline.join(" "))],
		["Resident", residentText(victim)],
		["What ran out", SCOPE_NAMES[incident.scope]],
		["Cgroup at limit", limit && limit.cgroup !== null ? coded(limit.cgroup) : null],
		["Usage", limit && limit.usage_bytes !== null ? `${sizeText(limit.usage_bytes)} of ${sizeText(ROWS[number].limit)}${limit.failcnt === null ? "" : `, ${count(limit.failcnt, "failed charge")}`}` : null],
		[role === "writer" ? "Limit lowered by" : "Requested by", role && asked],
		["Request", request && printable(request)],
		["Afterwards", exits[0] && exitText(exits[0])],
		["Seen by", { bpf: "BPF programs", bpf_tracepoints: "BPF programs, without kprobes", kernel_log: "the kernel log" }[record.source] || null],
		["Truncated", record.truncated.length ? record.truncated.map(printable).join(", ") : null],
	];
	return el("dl", {}, ...pairs.filter(([, value]) => value).flatMap(([term, value]) => [el("dt", {}, term), el("dd", {}, value)]));
}

function residentText(victim) {
	if (victim.rss_bytes === null) return null;
	const parts = [["anonymous", victim.anon_rss_bytes], ["file", victim.file_rss_bytes], ["shared", victim.shmem_rss_bytes], ["swapped out", victim.swap_bytes]];
	const told = parts.filter(([, bytes]) => bytes).map(([kind, bytes]) => `${sizeText(bytes)} ${kind}`).join(", ");
	return `${sizeText(victim.rss_bytes)}${told ? ` (${told})` : ""}`;
}

function exitText(exit) {
	const said = [`gone after ${(exit.after_ns / 1e6).toFixed(1)} ms`];
	if (exit.container_init_died !== null) said.push(exit.container_init_died ? "the container ended with it" : "the container keeps running");
	const verdict = exit.runtime_verdict;
	if (verdict && verdict.oom_killed !== null) said.push(verdict.oom_killed ? "the runtime reports OOMKilled" : "the runtime does not report OOMKilled");
	if (verdict && verdict.exit_code !== null) said.push(`exit code ${verdict.exit_code}`);
	return said.join("; ");
}

function otherVictims({ records, said, exits }) {
	if (records.length < 2) return null;
	const items = records.slice(1, MOST_VICTIMS).map((_, place) =>
		el("li", {}, said[place + 1], exits[place + 1] ? ` (${exitText(exits[place + 1])})` : ""));
	const rest = records.length - MOST_VICTIMS;
	return [el("h3", {}, `${count(records.length - 1, "further victim")} of this incident`), el("ul", {}, ...items), rest > 0 ? el("p", { className: "soft" }, `${rest} more: see the JSON.`) : null];
}

function meter(bytes, most, bound) {
	const fill = el("span");
	fill.style.width = `${bytes === null ? 0 : Math.min(100, (bytes / most) * 100)}%`;
	const bar = el("div", { className: "meter", "aria-hidden": "true" }, fill);
	if (bound) {
		const mark = el("i");
		mark.style.left = `calc(${(bound / most) * 100}% - 2px)`;
		bar.append(mark);
	}
	return bar;
}

function candidateChart({ records }) {
	const record = records[0], { candidates, victim } = record, bound = ROWS[currentIncident].limit;
	if (!candidates || !candidates.length) {
		const most = Math.max(victim.rss_bytes || 0, bound || 0);
		if (!bound || victim.rss_bytes === null) return null;
		const bar = el("div", { className: "killed" }, meter(victim.rss_bytes, most, bound));
		return [el("h3", {}, "Victim and limit"), bar, el("p", { className: "soft" }, `${sizeText(victim.rss_bytes)} of ${sizeText(bound)}; other candidates are unknown.`)];
	}
	const victims = new Set(records.map((each) => each.victim.pid));
	const most = Math.max(bound || 0, ...candidates.map((task) => task.rss_bytes || 0)) || 1;
	const rows = candidates.map((task) => {
		const killed = victims.has(task.pid);
		const share = bound && task.rss_bytes !== null ? ` (${Math.round((task.rss_bytes / bound) * 100)} %)` : "";
		return Object.assign([`${printable(task.comm)}${killed ? " (killed)" : ""}`, String(task.pid), meter(task.rss_bytes, most, bound), `${sizeText(task.rss_bytes)}${share}`, task.points === null ? "?" : task.points.toLocaleString("en"), known(task.oom_score_adj)], { className: killed ? "killed" : "" });
	});
	const scored = record.candidates_scored === null ? "" : ` ${count(record.candidates_scored, "process").replace("processs", "processes")} scored.`;
	const caption = bound ? `Resident memory; the line marks the limit, ${sizeText(bound)}.${scored}` : `Resident memory.${scored}`;
	return [el("h3", {}, "Candidates"), el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Candidates" },
		table({ className: "candidates" }, ["process", "#pid", "against the limit", "#resident", "#points", "#adj"], rows, caption))];
}

function breakdownChart({ parts }, record) {
	if (!parts.length) return null;
	const bound = ROWS[currentIncident].limit;
	const sum = parts.reduce((total, [, , bytes]) => total + bytes, 0);
	const whole = Math.max(bound || 0, sum);
	const shownParts = whole > sum ? [...parts, ["free", "not used", whole - sum]] : parts;
	const bar = el("div", { className: "stack", "aria-hidden": "true" });
	for (const [name, label, bytes] of shownParts) {
		const part = el("span", { className: name, title: `${label}: ${sizeText(bytes)}` });
		part.style.flex = `${bytes} 0 0`;
		bar.append(part);
	}
	const rows = shownParts.map(([name, label, bytes]) => [
		el("span", {}, el("span", { className: `swatch ${name}` }), label), sizeText(bytes), `${((bytes / whole) * 100).toFixed(1)} %`]);
	return [el("h3", {}, "Memory by kind"), bar, table({ className: "breakdown" }, ["kind", "#size", "#share"], rows, `Of ${sizeText(whole)} in ${record.limit.cgroup === null ? "it" : printable(record.limit.cgroup)}`)];
}

function family(victim) {
	const names = (list) => list.map((each) => printable(`${each.comm} (${each.pid})`));
	const pairs = [];
	if (victim.ancestors && victim.ancestors.length) pairs.push(["Started by", names(victim.ancestors).join(" ← ")]);
	if (victim.shared_mm && victim.shared_mm.length) pairs.push(["Killed with it, not logged", names(victim.shared_mm).join(", ")]);
	if (!pairs.length) return null;
	return [el("h3", {}, "Related processes"), el("dl", {}, ...pairs.flatMap(([term, value]) => [el("dt", {}, term), el("dd", {}, value)]))];
}

function regularityOf(number) {
	const workload = INDEX.workloads.find((each) => each.incidents.includes(number));
	if (!workload) return null;
	return [el("h3", {}, "Regularity"), el("p", {}, `${printable(workload.name)}: ${workload.text}.`), strip(workload, number)];
}

const SVG = "http://www.w3.org/2000/svg";

// A line per incident of a workload, over the time range of the page.
function strip(workload, marked) {
	const svg = document.createElementNS(SVG, "svg");
	svg.setAttribute("class", "strip");
	svg.setAttribute("viewBox", "0 0 160 18");
	svg.setAttribute("aria-hidden", "true");
	if (!WHOLE) return svg;
	const places = new Map();
	for (const number of workload.incidents) {
		const time = ROWS[number].time;
		if (time !== null) places.set(Math.round(((time - WHOLE[0]) / (WHOLE[1] - WHOLE[0])) * 158) + 1, number === marked || false);
	}
	let path = "";
	for (const x of places.keys()) path += `M${x} 2V16`;
	const line = document.createElementNS(SVG, "path");
	line.setAttribute("d", path);
	line.setAttribute("stroke", "currentColor");
	svg.append(line);
	return svg;
}

function nearBy(number) {
	const { time, node } = ROWS[number];
	if (time === null) return null;
	const found = [];
	const look = (by) => {
		for (let at = number + by; at >= 0 && at < ROWS.length && ROWS[at].time !== null && Math.abs(ROWS[at].time - time) <= NEAR_MS; at += by) {
			if (firstOf(ROWS[at].node) === firstOf(node)) found.push(at);
		}
	};
	look(-1);
	look(1);
	if (!found.length) return null;
	const buttons = found.slice(0, MOST_NEAR).map((each) => {
		const row = ROWS[each], container = nameOf("container", firstOf(row.container));
		const away = (row.time - time) / 1000;
		const button = el("button", { type: "button" }, printable(`${away < 0 ? "−" : "+"}${Math.abs(away).toFixed(1)} s  ${row.comm || "?"}${container === null ? "" : ` in ${container}`}`));
		button.addEventListener("click", () => chooseNumber(each));
		return button;
	});
	const rest = found.length - buttons.length;
	return [el("h3", {}, `${count(found.length, "further incident")} on this node within a minute`), el("div", { className: "buttons" }, ...buttons), rest > 0 ? el("p", { className: "soft" }, `and ${rest} more`) : null];
}

function lazy(label, make) {
	const pre = el("pre", { tabIndex: 0, role: "region", "aria-label": label });
	const details = el("details", {}, el("summary", {}, label), pre);
	details.addEventListener("toggle", () => { if (details.open && !pre.firstChild) pre.textContent = make(); });
	return details;
}

function logView({ lines, records }) {
	if (lines.length) {
		const own = lazy("Kernel log", () => lines.join("\n"));
		own.open = true;
		return own;
	}
	return lazy("In the format of the kernel log", () => kernelLog(records).join("\n"));
}

function jsonView(number) {
	return lazy("JSON", () => printableLines(jsonOf(number)));
}

function printableLines(text) {
	return text.split("\n").map(printable).join("\n");
}
