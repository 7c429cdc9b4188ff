// The page: tabs, tools, keys, and which view is shown.

const data = JSON.parse(document.getElementById("data").textContent);
store.readings = data.readings.map((json) => new Reading(json));
const film = {}; // the animation's own state
const [tabs, tools, room, help] = [".tabs", ".tools", "main", "dialog"].map((name) => document.querySelector(name));
const find = el("input", { id: "find", type: "search", placeholder: "Find a token", "aria-label": "Find a token", onkeydown: (e) => e.key === "Enter" && seek(find.value) });
const dark = matchMedia("(prefers-color-scheme: dark)");
let [view, tab] = [null, null];

const base = () => store.readings[store.which];
const decoded = () => [base(), ...store.readings].find((reading) => reading.decode);
// Its tab, whether there is one, and the view.
const VIEWS = {
	animation: ["Animation", decoded, () => animationView(decoded(), film)],
	matrix: ["Matrix", () => true, () => matrixView(current())],
	lines: ["Lines", () => true, () => withPanel(current(), linesView(current()))],
	heads: ["Heads", () => store.readings.some((r) => r.layers * r.heads > 1), () => headsView(current(), open)],
	compare: ["Compare", () => store.readings.length === 2, () => compareView(room.clientWidth)],
	measures: ["Beside weights", () => base().measures.length, () => measuresView(base(), room.clientWidth)],
};
const viewNames = () => Object.keys(VIEWS).filter((name) => VIEWS[name][1]());

// The scale ends at 1, or in a long text at the greatest weight.
function headMatrix(reading, name) {
	const h = chosenHead(reading);
	const picture = reading.picture(h);
	const most = reading.S > FEW || !reading.normalised ? greatestOf(picture.values) : 1;
	return new Matrix({ name, reading, picture, scale: new Scale({ most, root: store.root }), maskRow: (t) => reading.mask(h, t),
		strongest: (t, from, to) => reading.strongest(h, t, from, to), facts: (t, s) => pairFacts(reading, h, t, s) });
}

function matrixView(reading) {
	const matrix = headMatrix(reading, `${reading.name} ${headName(reading, chosenHead(reading))}`);
	const node = el("div", {}, el("p.facts", {}, `Rows read, columns are read: ${figures(reading, chosenHead(reading))}.`),
		matrix.node, matrix.scale.legend(reading.normalised ? "weight" : "value as it was given"));
	const draw = () => matrix.draw(node.clientWidth);
	return withPanel(reading, { node, draw, moved: (patch) => (patch.rows || patch.columns ? draw() : matrix.place()) });
}

function withPanel(reading, inner) {
	const side = el("aside", {}, panel(reading));
	return { node: el("div.split", {}, inner.node, side), draw: inner.draw, moved(patch) { inner.moved(patch); fill(side, panel(reading)); } };
}

function select(label, name, names) {
	const options = names.map((text, i) => el("option", { selected: i === store[name] }, text));
	return names.length > 1 && el("label", {}, label, " ", el("select", { id: name, onchange: (e) => change({ [name]: e.target.selectedIndex }) }, options));
}

function flag(name, label, key) {
	return el("button", { id: name, "aria-pressed": String(store[name]), title: `key ${key}`, onclick: ACTIONS[key] }, label);
}

function drawTools() {
	const numbers = (count) => range(count).map((i) => i + 1);
	const within = (...names) => names.includes(tab);
	const oneHead = within("matrix", "lines", "compare");
	fill(tools, !within("compare") && select("Show", "which", store.readings.map((r) => short(r.name, 40))),
		oneHead && [select("Layer", "layer", numbers(current().layers)), select("Head", "head", numbers(current().heads)), store.readings.some((r) => r.canMerge) && flag("merged", "Whole words", "m")],
		within("matrix", "heads", "compare") && flag("root", "Spread small weights", "s"), within("matrix", "lines") && find);
}

function drawTabs() {
	fill(tabs, viewNames().map((name) => el("button", { role: "tab", id: `tab-${name}`, "aria-controls": "view", "aria-selected": String(name === tab),
		tabindex: name === tab ? 0 : -1, onclick: () => open(name), onkeydown: walkTabs }, VIEWS[name][0])));
}

function walkTabs(event) {
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

// Another view, head, theme or size; the focus stays where it can.
function redraw() {
	film.stop?.();
	hush();
	if (!viewNames().includes(tab)) tab = viewNames()[0];
	const { id } = document.activeElement;
	drawTabs();
	drawTools();
	view = VIEWS[tab][2]();
	room.setAttribute("aria-labelledby", `tab-${tab}`);
	fill(room, view.node);
	view.draw();
	if (id) document.getElementById(id)?.focus({ preventScroll: true });
}

// The next query that has the text, or else the first key.
function seek(text) {
	const { queries, keys, T } = current();
	const has = (token) => text && token.toLowerCase().includes(text.toLowerCase());
	const next = queries.map((_, i) => (store.row + 1 + i) % T).find((t) => has(queries[t]));
	const key = keys.findIndex(has);
	if (next === undefined && key < 0) say(`no token has ${text}`);
	else moveTo(next ?? store.row, next === undefined ? key : store.column);
}

store.listeners.push((patch) => {
	if (/layer|head|which|merged|root/.test(Object.keys(patch))) redraw();
	else view.moved(patch);
});

function setTheme(isDark) {
	document.documentElement.dataset.theme = isDark ? "dark" : "light";
	if (tab) redraw();
}

const onFilm = (step, otherwise = () => {}) => () => (tab === "animation" ? film.step(step) : otherwise());
const ACTIONS = {
	ArrowLeft: onFilm(-1, () => moveTo(store.row - 1, store.column)),
	ArrowRight: onFilm(1, () => moveTo(store.row + 1, store.column)),
	ArrowUp: () => change({ layer: store.layer - 1 }),
	ArrowDown: () => change({ layer: store.layer + 1 }),
	"[": () => change({ head: store.head - 1 }),
	"]": () => change({ head: store.head + 1 }),
	" ": () => tab === "animation" && film.toggle(),
	Home: onFilm(-Infinity),
	End: onFilm(Infinity),
	"/": () => { if (tab !== "lines") open("matrix"); find.focus(); },
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
	store.root = store.readings.some((r) => r.T * r.S > 4096);
	if (base().is_self) store.row = base().T >> 1;
	setTheme(dark.matches);
	open(viewNames()[0]);
	dark.onchange = onafterprint = () => setTheme(dark.matches);
	onbeforeprint = () => setTheme(false);
	let wide = innerWidth;
	onresize = () => { if (innerWidth !== wide) { wide = innerWidth; redraw(); } };
}

start();
