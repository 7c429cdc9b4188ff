// Lines from queries to keys; in a long text, the queries near the cursor and the keys with most weight.

const AROUND = 48; // most names on each side
const STEP = 26; // pixels between names

function linesView(record) {
	const canvas = el("canvas", { "aria-hidden": "true" });
	const left = el("div", { role: "listbox", "aria-label": "Queries", "aria-multiselectable": "true" });
	const right = el("div", { role: "list", "aria-label": "Keys" });
	const node = el("div.lines", {}, left, canvas, right);
	const few = record.S <= AROUND;
	let [first, ids] = [0, range(record.S)];

	function drawQueryNames() {
		first = clamp(store.row - AROUND / 2, 0, Math.max(0, record.T - AROUND)) | 0;
		fill(left, range(Math.min(AROUND, record.T)).map((i) => el("div.name", { role: "option", "aria-label": spoken(short(record.queries[first + i], 20)), onpointerenter: () => moveCursor(first + i, store.column),
			onclick: () => toggle("rows", first + i), onkeydown: (event) => lineKey(event, left, first + i) }, tokenNode(record.queries[first + i], 20))));
	}

	function drawKeyNames({ weight, mask }) {
		const said = (s) => (mask && !mask[s] ? "masked" : twoDigits(weight[s]));
		if (!few) ids = greatestKeys(weight, AROUND).sort((a, b) => a - b);
		fill(right, ids.map((s) => el("div.name", { role: "listitem", "aria-label": spoken(`${short(record.keys[s], 20)} ${said(s)}`) }, tokenNode(record.keys[s], 20), el("b", {}, weight[s] <= 0 ? "" : twoDigits(weight[s])))));
		const most = few ? store.rows.size || 1 : Math.max(...weight);
		[...right.children].forEach((name, j) => {
			name.style.setProperty("--share", `${clamp((100 * weight[ids[j]]) / most, 0, 100) || 0}%`);
			name.classList.toggle("masked", said(ids[j]) === "masked");
		});
	}

	function draw() {
		drawKeyNames(selectedRow(record));
		const height = STEP * Math.max(left.children.length, right.children.length);
		const width = clamp(node.clientWidth - left.clientWidth - right.clientWidth, 60, 460);
		const pen = canvas.getContext("2d");
		sizeCanvas(canvas, pen, width, height);
		const chosen = store.rows.size ? store.rows : new Set([store.row]);
		for (const strong of [false, true]) {
			for (let i = 0; i < left.children.length; i++) {
				if (chosen.has(first + i) === strong) drawLines(pen, i, width, strong);
			}
		}
		[...left.children].forEach((name, i) => {
			name.classList.toggle("now", first + i === store.row);
			name.tabIndex = first + i === store.row ? 0 : -1;
			name.setAttribute("aria-selected", store.rows.has(first + i));
		});
	}

	function drawLines(pen, i, width, strong) {
		const { weight } = record.row(headIndex(record), first + i);
		pen.strokeStyle = strong ? colour("accent") : colour("hatch");
		const most = few ? 1 : Math.max(...weight);
		ids.forEach((s, j) => {
			const w = clamp(weight[s] / most, 0, 1);
			if (!(w > 0.004)) return;
			pen.globalAlpha = strong ? Math.max(w, 0.06) : 0.1 + w / 2;
			pen.lineWidth = strong ? 1 + 5 * w : 1;
			const [y, z] = [i, j].map((k) => (k + 0.5) * STEP);
			pen.beginPath();
			pen.moveTo(0, y);
			pen.bezierCurveTo(width * 0.4, y, width * 0.6, z, width, z);
			pen.stroke();
		});
	}

	drawQueryNames();
	return { node, draw, update() {
		if (store.row < first || store.row >= first + AROUND) drawQueryNames();
		draw();
	} };
}

function lineKey(event, list, t) {
	const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
	if (step) moveCursor(t + step, store.column);
	else if (event.key === "Enter" || event.key === "x") toggle("rows", t);
	else return;
	event.preventDefault();
	event.stopPropagation();
	list.querySelector(".now")?.focus();
}
