// The page: its tabs, tools and keys, and the view in the open tab.

const data = JSON.parse(document.getElementById("data").textContent);
store.records = data.records.map((json) => new AttentionRecord(json));
const player = {}; // the state of the animation
const [tabs, tools, main, help] = [".tabs", ".tools", "main", "dialog"].map((name) => document.querySelector(name));
const searchField = el("input", { id: "find", type: "search", placeholder: "Find a token", "aria-label": "Find a token", onkeydown: (e) => e.key === "Enter" && findToken(searchField.value) });
const darkScheme = matchMedia("(prefers-color-scheme: dark)");
let [view, tab, drawnWidth] = [null, null, 0];

const shownRecord = () => store.records[store.which];
const recordWithTrace = () => [shownRecord(), ...store.records].find((record) => record.decode);
// For each view: the label of its tab, whether the tab is shown, and the function that makes it.
const VIEWS = {
	animation: ["Animation", recordWithTrace, () => animationView(recordWithTrace(), player)],
	matrix: ["Matrix", () => true, () => matrixView(current())],
	lines: ["Lines", () => true, () => withPanel(current(), linesView(current()))],
	heads: ["Heads", () => store.records.some((r) => r.layers * r.heads > 1), () => headsView(current(), open)],
	compare: ["Compare", () => store.records.length === 2, () => compareView(main.clientWidth)],
	measures: ["Other measures", () => shownRecord().measures.length, () => measuresView(shownRecord(), main.clientWidth)],
};
const viewNames = () => Object.keys(VIEWS).filter((name) => VIEWS[name][1]());

// The colour scale ends at 1, or at the greatest weight if the text is long.
function headMatrix(record, name) {
	const h = headIndex(record);
	const picture = record.picture(h);
	const most = record.S > FEW || !record.normalised ? greatestOf(picture.values) : 1;
	return new Matrix({ name, record, picture, scale: new Scale({ most, root: store.root }), maskRow: (t) => record.mask(h, t),
		strongest: (t, from, to) => record.strongest(h, t, from, to), facts: (t, s) => pairFacts(record, h, t, s) });
}

function matrixView(record) {
	const matrix = headMatrix(record, `${record.name} ${headName(record, headIndex(record))}`);
	const node = el("div", {}, el("p.facts", {}, `Rows are queries, columns are keys. This head has ${statistics(record, headIndex(record))}.`),
		matrix.node, matrix.scale.legend(record.normalised ? "weight" : "value"));
	const draw = () => matrix.draw(node.clientWidth);
	return withPanel(record, { node, draw, update: (patch) => (patch.rows || patch.columns ? draw() : matrix.placeCursor()) });
}

function withPanel(record, inner) {
	const side = el("aside", {}, panel(record));
	return { node: el("div.split", {}, inner.node, side), draw: inner.draw, update(patch) { inner.update(patch); fill(side, panel(record)); } };
}

function select(label, name, names) {
	const options = names.map((text, i) => el("option", { selected: i === store[name] }, text));
	return names.length > 1 && el("label", {}, label, " ", el("select", { id: name, onchange: (e) => change({ [name]: e.target.selectedIndex }) }, options));
}

function toggleButton(name, label, key) {
	return el("button", { id: name, "aria-pressed": String(store[name]), title: `key ${key}`, onclick: ACTIONS[key] }, label);
}

function drawTools() {
	const numbers = (count) => range(count).map((i) => i + 1);
	const within = (...names) => names.includes(tab);
	const oneHead = within("matrix", "lines", "compare");
	fill(tools, !within("compare") && select("Show", "which", store.records.map((r) => short(r.name, 40))),
		oneHead && [select("Layer", "layer", numbers(current().layers)), select("Head", "head", numbers(current().heads)), store.records.some((r) => r.canMerge) && toggleButton("merged", "Merge subwords", "m")],
		within("matrix", "heads", "compare") && toggleButton("root", "Emphasise small weights", "s"), within("matrix", "lines") && searchField);
}

function drawTabs() {
	fill(tabs, viewNames().map((name) => el("button", { role: "tab", id: `tab-${name}`, "aria-controls": "view", "aria-selected": String(name === tab),
		tabindex: name === tab ? 0 : -1, onclick: () => open(name), onkeydown: onTabKey }, VIEWS[name][0])));
}

function onTabKey(event) {
	const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
	if (!step) return;
	event.stopPropagation();
	const names = viewNames();
	open(names.at((names.indexOf(tab) + step) % names.length));
	tabs.querySelector("[tabindex='0']").focus();
}

function open(name) {
	tab = name;
	redraw();
}

// Draws the open tab again and keeps the focus.
function redraw() {
	player.stop?.();
	hideTooltip();
	if (!viewNames().includes(tab)) tab = viewNames()[0];
	const { id } = document.activeElement;
	drawTabs();
	drawTools();
	view = VIEWS[tab][2]();
	main.setAttribute("aria-labelledby", `tab-${tab}`);
	fill(main, view.node);
	view.draw();
	drawnWidth = main.clientWidth;
	if (id) document.getElementById(id)?.focus({ preventScroll: true });
}

// Moves the cursor to the next query that contains the text, or else to the first such key.
function findToken(text) {
	const { queries, keys, T } = current();
	const has = (token) => text && token.toLowerCase().includes(text.toLowerCase());
	const next = queries.map((_, i) => (store.row + 1 + i) % T).find((t) => has(queries[t]));
	const key = keys.findIndex(has);
	if (next === undefined && key < 0) announce(`no token contains ${text}`);
	else moveCursor(next ?? store.row, next === undefined ? key : store.column);
}

store.listeners.push((patch) => {
	if (/layer|head|which|merged|root/.test(Object.keys(patch))) redraw();
	else view.update(patch);
});

function setTheme(isDark) {
	document.documentElement.dataset.theme = isDark ? "dark" : "light";
	if (tab) redraw();
}

const playerOr = (step, otherwise = () => {}) => () => (tab === "animation" ? player.step(step) : otherwise());
const ACTIONS = {
	ArrowLeft: playerOr(-1, () => moveCursor(store.row - 1, store.column)),
	ArrowRight: playerOr(1, () => moveCursor(store.row + 1, store.column)),
	ArrowUp: () => change({ layer: store.layer - 1 }),
	ArrowDown: () => change({ layer: store.layer + 1 }),
	"[": () => change({ head: store.head - 1 }),
	"]": () => change({ head: store.head + 1 }),
	" ": () => tab === "animation" && player.toggle(),
	Home: playerOr(-Infinity),
	End: playerOr(Infinity),
	"/": () => { if (tab !== "lines") open("matrix"); searchField.focus(); },
	"?": () => (help.open ? help.close() : help.showModal()),
	d: () => setTheme(document.documentElement.dataset.theme === "light"),
	m: () => change({ merged: !store.merged, rows: new Set(), columns: new Set() }),
	s: () => change({ root: !store.root }),
	x: () => toggle("rows", store.row),
	c: () => toggle("columns", store.column),
};

onkeydown = (event) => {
	const { key, target, ctrlKey, metaKey, altKey } = event;
	if (ctrlKey || metaKey || altKey || target.matches("input, select") || (key === " " && target.matches("button"))) return;
	const action = viewNames()[key - 1] ? () => open(viewNames()[key - 1]) : ACTIONS[key];
	if (!action) return;
	event.preventDefault();
	action();
};

function start() {
	for (const button of document.querySelectorAll(".corner button")) button.onclick = ACTIONS[button.value];
	store.root = store.records.some((r) => r.T * r.S > 4096);
	if (shownRecord().is_self) store.row = shownRecord().T >> 1;
	setTheme(darkScheme.matches);
	open(viewNames()[0]);
	darkScheme.onchange = onafterprint = () => setTheme(darkScheme.matches);
	onbeforeprint = () => setTheme(false);
	watchWidth(main, () => drawnWidth, redraw);
	reportHeight();
}

start();
