// SPDX-License-Identifier: Apache-2.0
// The data of the page, and the filters.

const INDEX = JSON.parse(document.getElementById("index").textContent);
const LINES = document.getElementById("records").textContent.trim().split("\n");
const FACETS = Object.keys(INDEX.names);
const SCOPES = ["memcg", "host", "cpuset", "mempolicy", "host_or_nodes", "sysrq", null];
const SCOPE_NAMES = {
	memcg: "a memory cgroup's limit", host: "the host's memory", cpuset: "a cpuset's nodes",
	mempolicy: "a memory policy's nodes", host_or_nodes: "the host's memory, or some nodes'", sysrq: "asked for by SysRq-f", null: "not known",
};

// A row: time (ms, null: unknown), sinceBoot (if the log has no dates), victims, a name's number per facet (a list if the
// victims differ), comm, resident and limit bytes (rss, limit), and the search text (text).
const ROWS = INDEX.rows.map((row) => Object.fromEntries(row.map((value, number) => [INDEX.columns[number], value])));
const TIMES = ROWS.map((row) => row.time).filter((time) => time !== null);
const WHOLE = TIMES.length ? [TIMES[0], TIMES[TIMES.length - 1] + 1000] : null;

const filter = { text: "", container: -1, image: -1, node: -1, namespace: -1, scope: -1, from: null, to: null };
const listeners = [];
let shown = [];
let shownAnyTime = [];

function nameOf(facet, number) {
	return INDEX.names[facet][number];
}

function has(value, wanted) {
	return Array.isArray(value) ? value.includes(wanted) : value === wanted;
}

function firstOf(value) {
	return Array.isArray(value) ? value[0] : value;
}

// Newest first, as in the list; shownAnyTime ignores the range of the timeline.
function applyFilter() {
	const words = filter.text.toLowerCase().split(/\s+/).filter(Boolean);
	const wanted = FACETS.filter((facet) => filter[facet] >= 0);
	shown = [];
	shownAnyTime = [];
	for (let number = ROWS.length - 1; number >= 0; number--) {
		const row = ROWS[number];
		if (!wanted.every((facet) => has(row[facet], filter[facet]))) continue;
		if (!words.every((word) => row.text.includes(word))) continue;
		shownAnyTime.push(number);
		if (filter.from !== null && (row.time === null || row.time < filter.from || row.time >= filter.to)) continue;
		shown.push(number);
	}
	for (const listener of listeners) listener();
}

function setFilter(changes) {
	Object.assign(filter, changes);
	applyFilter();
}

// Victims per name of a facet among the shown incidents: [number, victims], largest first.
function countVictims(facet) {
	const counts = new Map();
	for (const number of shown) {
		const row = ROWS[number];
		if (Array.isArray(row[facet])) {
			for (const name of row[facet]) counts.set(name, (counts.get(name) || 0) + 1);
		} else {
			counts.set(row[facet], (counts.get(row[facet]) || 0) + row.victims);
		}
	}
	return [...counts].sort((one, other) => other[1] - one[1] || one[0] - other[0]);
}

function incidentOf(number) {
	return JSON.parse(LINES[number]);
}

// Keeps numbers beyond 2^53, such as the kernel's "no limit", exact if the browser supports it.
function jsonOf(number) {
	const exact = (_, value, context) =>
		typeof value === "number" && !Number.isSafeInteger(value) && context && JSON.rawJSON ? JSON.rawJSON(context.source) : value;
	const { records, exits } = JSON.parse(LINES[number], exact);
	return [...records, ...exits.filter(Boolean)].map((record) => JSON.stringify(record, null, 2)).join("\n");
}

function el(tag, properties, ...children) {
	const element = document.createElement(tag);
	for (const [name, value] of Object.entries(properties || {})) {
		if (name.includes("-") || name === "role") element.setAttribute(name, value);
		else element[name] = value;
	}
	element.append(...children.filter((child) => child !== null && child !== undefined));
	return element;
}

// Escapes characters that hide or reverse text.
function printable(text) {
	return String(text).replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Cs}\p{Zl}\p{Zp}]/gu, (char) => {
		const code = char.codePointAt(0);
		return code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u{${code.toString(16)}}`;
	});
}

function sizeText(bytes) {
	if (bytes === null || bytes === undefined) return "?";
	let size = bytes;
	for (const unit of ["B", "KiB", "MiB", "GiB"]) {
		if (size < 1024) return `${unit === "B" || size >= 100 ? Math.round(size) : size.toFixed(1)} ${unit}`;
		size /= 1024;
	}
	return `${size.toFixed(1)} TiB`;
}

function timeText(time) {
	return time === null ? "time unknown" : new Date(time).toISOString().slice(0, 19).replace("T", " ");
}

function spanText(seconds) {
	if (seconds === null) return "";
	for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
		if (seconds >= 2 * size) return `${(seconds / size).toFixed(1)} ${unit}`;
	}
	return `${seconds.toFixed(1)} s`;
}

function count(number, noun) {
	return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

function table(properties, heads, rows, caption) {
	const head = el("tr", {}, ...heads.map((name) => el("th", { scope: "col", className: name.startsWith("#") ? "number" : "" }, name.replace(/^#/, ""))));
	const body = rows.map((cells) => el("tr", { className: cells.className || "" }, ...cells.map((cell, place) =>
		el("td", { className: heads[place].startsWith("#") ? "number" : "" }, cell))));
	return el("table", properties, caption ? el("caption", {}, caption) : null, el("thead", {}, head), el("tbody", {}, ...body));
}
