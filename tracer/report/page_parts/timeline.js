// SPDX-License-Identifier: Apache-2.0
// The chart of incidents over time: a bar per interval, divided by scope.

const chart = document.getElementById("chart");
const canvas = document.getElementById("canvas");
const chartSaid = document.getElementById("chart-said");
const STEPS_S = [1, 5, 15, 60, 300, 900, 3600, 10800, 21600, 43200, 86400, 604800, 2592000, 7776000, 31536000];
const AXIS_PX = 20;
const LEFT_PX = 44;
const MOST_BARS = 160;
const LEAST_SPAN_MS = 10000;

let view = WHOLE && [...WHOLE];
let bars = [];
let cursor = null;
let anchor = null;
let dragged = null;

function scopeClass(scope) {
	return scope === null ? "unknown" : scope;
}

function plotWidth() {
	return Math.max(1, chart.clientWidth - LEFT_PX);
}

function buildBars() {
	bars = [];
	if (!view) return;
	const span = view[1] - view[0];
	const most = Math.max(20, Math.min(MOST_BARS, Math.floor(plotWidth() / 7)));
	const step = 1000 * (STEPS_S.find((seconds) => span / (1000 * seconds) <= most) || STEPS_S[STEPS_S.length - 1]);
	const begin = Math.floor(view[0] / step) * step;
	const number = Math.max(1, Math.ceil((view[1] - begin) / step));
	for (let at = 0; at < number; at++) bars.push({ from: begin + at * step, to: begin + (at + 1) * step, total: 0, scopes: new Map() });
	for (const each of shownAnyTime) {
		const row = ROWS[each];
		const bar = row.time === null ? undefined : bars[Math.floor((row.time - begin) / step)];
		if (!bar) continue;
		const scope = nameOf("scope", firstOf(row.scope));
		bar.total++;
		bar.scopes.set(scope, (bar.scopes.get(scope) || 0) + 1);
	}
	if (cursor !== null && cursor >= bars.length) cursor = bars.length - 1;
}

function draw() {
	const ratio = window.devicePixelRatio || 1;
	const width = chart.clientWidth, height = chart.clientHeight, deep = height - AXIS_PX;
	canvas.width = width * ratio;
	canvas.height = height * ratio;
	const pen = canvas.getContext("2d");
	pen.scale(ratio, ratio);
	const style = getComputedStyle(document.documentElement);
	const color = (name) => style.getPropertyValue(`--${name}`);
	pen.font = "12px system-ui, sans-serif";
	pen.textBaseline = "alphabetic";
	if (!bars.length) {
		pen.fillStyle = color("soft");
		pen.fillText("No incident has a time.", 8, deep / 2);
		return;
	}
	const highest = Math.max(1, ...bars.map((bar) => bar.total));
	const each = plotWidth() / bars.length;
	pen.strokeStyle = color("line");
	pen.fillStyle = color("soft");
	for (const part of highest > 1 ? [0.5, 1] : [1]) {
		const y = Math.round(deep - part * (deep - 16)) + 0.5;
		pen.beginPath();
		pen.moveTo(LEFT_PX, y);
		pen.lineTo(width, y);
		pen.stroke();
		pen.textAlign = "right";
		if (Number.isInteger(highest * part)) pen.fillText((highest * part).toLocaleString("en"), LEFT_PX - 6, y + 4);
		pen.textAlign = "left";
	}
	pen.translate(LEFT_PX, 0);
	bars.forEach((bar, place) => {
		let y = deep;
		for (const scope of SCOPES) {
			const part = bar.scopes.get(scope);
			if (!part) continue;
			const tall = Math.max(2, (part / highest) * (deep - 16));
			pen.fillStyle = color(scopeClass(scope));
			pen.fillRect(place * each + 0.5, y - tall, Math.max(1, each - 1), tall);
			y -= tall;
		}
	});
	const marked = dragged ? [dragged[0] / each, dragged[1] / each] : anchor !== null ? [anchor, cursor] : cursor !== null ? [cursor, cursor] : null;
	if (marked && (dragged || document.activeElement === chart)) {
		const from = Math.floor(Math.min(...marked)), to = Math.floor(Math.max(...marked)) + 1;
		pen.fillStyle = color("accent");
		pen.globalAlpha = 0.18;
		pen.fillRect(from * each, 0, (to - from) * each, deep);
		pen.globalAlpha = 1;
		pen.strokeStyle = color("accent");
		pen.strokeRect(from * each + 0.5, 0.5, (to - from) * each - 1, deep - 1);
	}
	drawAxis(pen, plotWidth(), deep, color);
}

function drawAxis(pen, width, deep, color) {
	pen.fillStyle = color("soft");
	const step = bars[0].to - bars[0].from;
	const wide = step >= 86400000 ? 90 : 130;
	const labels = Math.max(1, Math.floor(width / wide));
	const every = Math.max(1, Math.ceil(bars.length / labels));
	for (let place = 0; place < bars.length; place += every) {
		const x = (place * width) / bars.length;
		const text = timeText(bars[place].from).slice(0, step >= 86400000 ? 10 : step >= 60000 ? 16 : 19);
		if (x + pen.measureText(text).width > width) break;
		pen.fillRect(x, deep, 1, 4);
		pen.fillText(text, x + 4, deep + 15);
	}
}

function say() {
	if (cursor === null || !bars.length) return;
	const from = anchor === null ? cursor : Math.min(anchor, cursor);
	const to = anchor === null ? cursor : Math.max(anchor, cursor);
	const total = bars.slice(from, to + 1).reduce((sum, bar) => sum + bar.total, 0);
	chartSaid.textContent = `${timeText(bars[from].from)} to ${timeText(bars[to].to)}: ${count(total, "incident")}`;
}

function fillTable() {
	const details = document.getElementById("chart-table");
	if (!details.open) return;
	const scopes = SCOPES.filter((scope) => bars.some((bar) => bar.scopes.get(scope)));
	const heads = ["from", "to", "#incidents", ...scopes.map((scope) => `#${scope || "unknown"}`)];
	const rows = bars.filter((bar) => bar.total).map((bar) => [
		timeText(bar.from), timeText(bar.to), String(bar.total), ...scopes.map((scope) => String(bar.scopes.get(scope) || 0))]);
	details.querySelector("div").replaceChildren(table({}, heads, rows, "Intervals without incidents are omitted. UTC."));
}

function showRange(from, to) {
	if (!WHOLE) return;
	const span = Math.max(LEAST_SPAN_MS, to - from);
	from = Math.max(WHOLE[0] - span / 2, Math.min(from, WHOLE[1] - span / 2));
	view = [from, from + span];
	const all = view[0] <= WHOLE[0] && view[1] >= WHOLE[1];
	if (all) view = [...WHOLE];
	anchor = null;
	setFilter(all ? { from: null, to: null } : { from: view[0], to: view[1] });
}

function showAll() {
	if (WHOLE) showRange(...WHOLE);
}

function zoom(factor) {
	if (!view) return;
	const span = view[1] - view[0];
	const middle = cursor !== null && document.activeElement === chart ? (bars[cursor].from + bars[cursor].to) / 2 : view[0] + span / 2;
	showRange(middle - (span * factor) / 2, middle + (span * factor) / 2);
	cursor = cursor === null ? null : Math.max(0, bars.findIndex((bar) => bar.to > middle));
	redraw();
}

function move(part) {
	if (!view) return;
	const span = view[1] - view[0];
	showRange(view[0] + part * span, view[1] + part * span);
}

function redraw() {
	buildBars();
	draw();
	fillTable();
}

const CHART_KEYS = {
	ArrowLeft: (shift) => step(-1, shift), ArrowRight: (shift) => step(1, shift),
	Home: (shift) => step(-bars.length, shift), End: (shift) => step(bars.length, shift),
	"+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), 0: showAll, Escape: showAll,
	Enter: () => {
		if (cursor === null) return;
		const from = anchor === null ? cursor : Math.min(anchor, cursor), to = anchor === null ? cursor : Math.max(anchor, cursor);
		showRange(bars[from].from, bars[to].to);
		cursor = 0;
		redraw();
		say();
	},
};

function step(by, select) {
	if (!bars.length) return;
	if (select && anchor === null) anchor = cursor === null ? 0 : cursor;
	if (!select) anchor = null;
	cursor = Math.max(0, Math.min(bars.length - 1, cursor === null ? (by > 0 ? 0 : bars.length - 1) : cursor + by));
	draw();
	say();
}

function setUpTimeline() {
	chart.addEventListener("keydown", (event) => {
		const act = CHART_KEYS[event.key];
		if (!act || event.ctrlKey || event.altKey || event.metaKey) return;
		event.preventDefault();
		act(event.shiftKey);
	});
	chart.addEventListener("focus", draw);
	chart.addEventListener("blur", draw);
	const at = (event) => Math.max(0, Math.min(plotWidth() - 1, event.clientX - chart.getBoundingClientRect().left - LEFT_PX));
	chart.addEventListener("pointerdown", (event) => {
		if (!bars.length || event.button !== 0) return;
		chart.setPointerCapture(event.pointerId);
		dragged = [at(event), at(event)];
	});
	chart.addEventListener("pointermove", (event) => {
		if (!bars.length) return;
		cursor = Math.floor((at(event) / plotWidth()) * bars.length);
		if (dragged) dragged[1] = at(event);
		anchor = dragged ? Math.floor((dragged[0] / plotWidth()) * bars.length) : null;
		say();
		if (dragged) draw();
	});
	chart.addEventListener("pointerup", () => {
		if (!dragged) return;
		const far = Math.abs(dragged[1] - dragged[0]) > 4;
		dragged = null;
		if (far) CHART_KEYS.Enter();
		else anchor = null;
		draw();
	});
	chart.addEventListener("pointercancel", () => { dragged = anchor = null; draw(); });
	for (const [id, act] of [["earlier", () => move(-0.5)], ["later", () => move(0.5)], ["zoom-in", () => zoom(0.5)], ["zoom-out", () => zoom(2)], ["zoom-all", showAll]]) {
		document.getElementById(id).addEventListener("click", act);
	}
	document.getElementById("chart-table").addEventListener("toggle", fillTable);
	matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
	new ResizeObserver(redraw).observe(chart);
	const there = new Set(ROWS.map((row) => firstOf(row.scope)));
	const scopes = SCOPES.filter((scope) => there.has(INDEX.names.scope.indexOf(scope)));
	document.getElementById("legend").append(...scopes.map((scope) =>
		el("li", {}, el("span", { className: `swatch ${scopeClass(scope)}` }), SCOPE_NAMES[scope])));
	listeners.push(redraw);
}
