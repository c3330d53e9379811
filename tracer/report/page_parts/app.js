// SPDX-License-Identifier: Apache-2.0
// Composes the page.

const MOST_OPTIONS = 500;
const MOST_RANKS = 6;
const LONGEST_NAME = 120;
const SEARCH_PAUSE_MS = 120;
const LABELS = { container: "Container", image: "Image", node: "Node", namespace: "Namespace", scope: "Scope" };
const NONE = { container: "(in no container)", image: "(no image)", node: "(unknown)", namespace: "(no namespace)", scope: "(unknown)" };
const selects = {};

function label(facet, number) {
	const name = nameOf(facet, number);
	return name === null ? NONE[facet] : printable(name);
}

function makeSelect(facet) {
	const select = el("select", {}, el("option", { value: "-1" }, "all"));
	const counts = countVictims(facet);
	const named = counts.slice(0, MOST_OPTIONS).map(([number, victims]) => el("option", { value: String(number) }, `${label(facet, number)} (${victims.toLocaleString("en")})`));
	select.append(...named);
	select.addEventListener("change", () => setFilter({ [facet]: Number(select.value) }));
	selects[facet] = select;
	const rest = counts.length - named.length;
	return el("label", {}, `${LABELS[facet]}${rest > 0 ? ` (the ${MOST_OPTIONS} with most victims)` : ""} `, select);
}

function chooseFacet(facet, number) {
	if (number >= 0 && ![...selects[facet].options].some((option) => option.value === String(number))) {
		selects[facet].append(el("option", { value: String(number) }, label(facet, number)));
	}
	selects[facet].value = String(number);
	setFilter({ [facet]: number });
}

function clearFilters() {
	document.getElementById("text").value = "";
	for (const select of Object.values(selects)) select.value = "-1";
	Object.assign(filter, { text: "", container: -1, image: -1, node: -1, namespace: -1, scope: -1 });
	showAll();
	if (!WHOLE) applyFilter();
}

function showCount() {
	const range = filter.from === null ? "" : `, ${timeText(filter.from)} to ${timeText(filter.to)}`;
	document.getElementById("shown").textContent = `Shown: ${shown.length.toLocaleString("en")} of ${count(ROWS.length, "incident")}${range}`;
	document.getElementById("incidents-title").textContent = `Incidents (${shown.length.toLocaleString("en")})`;
}

function showRankings() {
	const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.rank : undefined;
	document.getElementById("rankings").replaceChildren(...["container", "image", "node"].map((facet) => {
		const counts = countVictims(facet);
		const most = counts.length ? counts[0][1] : 1;
		const items = counts.slice(0, MOST_RANKS).map(([number, victims]) => {
			const bar = el("b", { "aria-hidden": "true" });
			bar.style.width = `${(victims / most) * 100}%`;
			const button = el("button", { type: "button", className: "rank", "aria-pressed": String(filter[facet] === number) },
				bar, el("span", {}, label(facet, number)), el("span", {}, victims.toLocaleString("en")));
			button.dataset.rank = `${facet}-${number}`;
			button.addEventListener("click", () => chooseFacet(facet, filter[facet] === number ? -1 : number));
			return el("li", {}, button);
		});
		const rest = counts.length - items.length;
		return el("div", {}, el("h3", {}, `By ${facet}`), el("ol", {}, ...items), rest > 0 ? el("p", { className: "soft" }, `and ${rest.toLocaleString("en")} more`) : null);
	}));
	if (focused) {
		const again = document.querySelector(`[data-rank="${focused}"]`);
		if (again) again.focus();
	}
}

// The end of a path is the most specific part.
function endOf(text) {
	return text.length <= LONGEST_NAME ? text : el("span", { title: text }, `…${text.slice(1 - LONGEST_NAME)}`);
}

function showPatterns() {
	const rows = INDEX.workloads.slice(0, 100).map((workload) => [
		endOf(printable(workload.name)), endOf(printable(workload.node === null ? "" : workload.node)), workload.incidents.length.toLocaleString("en"), workload.victims.toLocaleString("en"),
		strip(workload), workload.text]);
	const rest = INDEX.workloads.length - rows.length;
	document.getElementById("pattern-table").replaceWith(Object.assign(
		table({}, ["workload", "node", "#incidents", "#victims", "when", "pattern"], rows, rest > 0 ? `${rest} more workloads with fewer incidents are not shown.` : ""), { id: "pattern-table" }));
}

function setUp() {
	const victims = ROWS.reduce((sum, row) => sum + row.victims, 0);
	const nodes = INDEX.names.node.length;
	const time = WHOLE ? `; ${timeText(WHOLE[0])} to ${timeText(WHOLE[1] - 1000)} UTC` : "";
	document.getElementById("summary").textContent = `${count(ROWS.length, "incident")}, ${count(victims, "victim")}, ${count(nodes, "node")}${time}`;
	document.getElementById("notes").append(...INDEX.notes.map((note) => el("li", {}, `${note}.`)));
	const undated = ROWS.length - TIMES.length;
	if (undated) document.getElementById("notes").append(el("li", {}, `Incidents without a time, which no time range includes: ${undated}.`));
	document.getElementById("made").textContent = `Made by oomtrace ${INDEX.version}, ${INDEX.made.slice(0, 16).replace("T", " ")} UTC. Times are UTC. This page loads nothing from the network.`;
	for (let number = 0; number < ROWS.length; number++) shown.push(number);
	const clear = el("button", { type: "button", id: "clear" }, "Clear filters");
	clear.addEventListener("click", clearFilters);
	document.getElementById("fields").append(...FACETS.map(makeSelect), clear);
	let pause = 0;
	const text = document.getElementById("text");
	text.addEventListener("input", () => {
		clearTimeout(pause);
		pause = setTimeout(() => setFilter({ text: text.value }), SEARCH_PAUSE_MS);
	});
	document.addEventListener("keydown", (event) => {
		if (event.ctrlKey || event.altKey || event.metaKey) return;
		if (event.key === "/" && !["INPUT", "SELECT"].includes(event.target.tagName)) {
			event.preventDefault();
			text.focus();
		} else if (event.key === "Escape" && document.getElementById("incident").contains(event.target)) {
			list.focus();
		}
	});
	setUpTimeline();
	setUpList();
	listeners.push(showCount, showRankings);
	showPatterns();
	applyFilter();
	document.documentElement.dataset.ready = String(Math.round(performance.now()));
}

setUp();
