// SPDX-License-Identifier: Apache-2.0
// The list of incidents; only visible rows exist in the document.

const list = document.getElementById("list");
const rowsBox = document.getElementById("rows");
const ROW_PX = 56;
const SPARE = 6;

const pool = [];
let chosen = -1;
let scheduled = false;

function makeRow() {
	const parts = { what: el("span", { className: "what" }), size: el("span", { className: "size" }), when: el("span", { className: "when" }), why: el("span", { className: "why" }) };
	const row = el("div", { className: "row", role: "option" }, parts.what, parts.size, parts.when, parts.why);
	row.addEventListener("click", () => choose(row.place));
	rowsBox.append(row);
	return Object.assign(row, { parts, place: -1 });
}

function fillRow(row, place) {
	const number = shown[place], data = ROWS[number];
	const container = nameOf("container", firstOf(data.container));
	row.place = place;
	row.id = `row-${place}`;
	row.hidden = false;
	row.style.transform = `translateY(${place * ROW_PX}px)`;
	row.setAttribute("aria-posinset", place + 1);
	row.setAttribute("aria-setsize", shown.length);
	row.setAttribute("aria-selected", place === chosen);
	const more = data.victims > 1 ? ` and ${data.victims - 1} more` : "";
	row.parts.what.textContent = printable(`${data.comm === null ? "a process" : data.comm}${more}${container === null ? "" : ` in ${container}`}`);
	row.parts.size.textContent = data.limit === null ? sizeText(data.rss) : `${sizeText(data.rss)} of ${sizeText(data.limit)}`;
	row.parts.when.textContent = `${data.sinceBoot || timeText(data.time)}  ${printable(nameOf("node", firstOf(data.node)) || "")}`;
	row.parts.why.textContent = nameOf("scope", firstOf(data.scope)) || "";
	row.parts.why.className = `why ${scopeClass(nameOf("scope", firstOf(data.scope)))}`;
}

function renderList() {
	scheduled = false;
	const first = Math.max(0, Math.floor(list.scrollTop / ROW_PX) - SPARE);
	const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW_PX) + SPARE);
	const needed = Math.ceil(list.clientHeight / ROW_PX) + 2 * SPARE + 2;
	while (pool.length < needed) pool.push(makeRow());
	for (let place = first; place < last; place++) {
		const row = pool[place % pool.length];
		if (row.place !== place || row.hidden) fillRow(row, place);
	}
	for (const row of pool) {
		if (row.place < first || row.place >= last) {
			row.hidden = true;
			row.removeAttribute("id");
		}
	}
}

function scheduleList() {
	if (!scheduled) requestAnimationFrame(renderList);
	scheduled = true;
}

function choose(place) {
	if (!shown.length) return;
	const before = chosen;
	chosen = Math.max(0, Math.min(shown.length - 1, place));
	const top = chosen * ROW_PX;
	if (top < list.scrollTop) list.scrollTop = top;
	else if (top + ROW_PX > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW_PX - list.clientHeight;
	renderList();
	for (const row of pool) if (row.place === before || row.place === chosen) row.setAttribute("aria-selected", row.place === chosen);
	list.setAttribute("aria-activedescendant", `row-${chosen}`);
	showIncident(shown[chosen]);
}

function chooseNumber(number) {
	if (!shown.includes(number)) clearFilters();
	choose(shown.indexOf(number));
}

function refreshList() {
	const number = currentIncident;
	rowsBox.style.height = `${shown.length * ROW_PX}px`;
	for (const row of pool) row.place = -1;
	chosen = shown.indexOf(number);
	if (chosen < 0) list.scrollTop = 0;
	renderList();
	if (!shown.length) {
		list.removeAttribute("aria-activedescendant");
		showIncident(-1);
	} else {
		choose(Math.max(0, chosen));
	}
}

function setUpList() {
	const page = () => Math.max(1, Math.floor(list.clientHeight / ROW_PX) - 1);
	const keys = {
		ArrowDown: () => choose(chosen + 1), ArrowUp: () => choose(chosen - 1), PageDown: () => choose(chosen + page()),
		PageUp: () => choose(chosen - page()), Home: () => choose(0), End: () => choose(shown.length - 1),
		Enter: () => document.getElementById("incident-title").focus(),
	};
	list.addEventListener("keydown", (event) => {
		const act = keys[event.key];
		if (!act || event.ctrlKey || event.altKey || event.metaKey) return;
		event.preventDefault();
		act();
	});
	list.addEventListener("scroll", renderList, { passive: true });
	new ResizeObserver(scheduleList).observe(list);
	listeners.push(refreshList);
}
