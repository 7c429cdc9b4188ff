// Lines from queries to keys; of a long text, queries around the cursor, and what it reads most.

const AROUND = 48; // rows on each side
const STEP = 26;

function linesView(reading) {
	const canvas = el("canvas", { "aria-hidden": "true" });
	const left = el("div", { role: "listbox", "aria-label": "Queries", "aria-multiselectable": "true" });
	const right = el("div", { role: "list", "aria-label": "Keys" });
	const node = el("div.lines", {}, left, canvas, right);
	const few = reading.S <= AROUND;
	let [first, ids] = [0, range(reading.S)];

	function names() {
		first = clamp(store.row - AROUND / 2, 0, Math.max(0, reading.T - AROUND)) | 0;
		fill(left, range(Math.min(AROUND, reading.T)).map((i) => el("div.name", { role: "option", onpointerenter: () => moveTo(first + i, store.column),
			onclick: () => toggle("rows", first + i), onkeydown: (event) => lineKey(event, left, first + i) }, quoted(reading.queries[first + i], 20))));
	}

	function keyNames(weight) {
		if (!few) ids = greatest(weight, AROUND).sort((a, b) => a - b);
		fill(right, ids.map((s) => el("div.name", { role: "listitem" }, quoted(reading.keys[s], 20), el("b", {}, weight[s] <= 0 ? "" : two(weight[s])))));
		const most = few ? store.rows.size || 1 : Math.max(...weight);
		[...right.children].forEach((name, j) => name.style.setProperty("--share", `${clamp((100 * weight[ids[j]]) / most, 0, 100) || 0}%`));
	}

	function draw() {
		keyNames(chosenRow(reading).weight);
		const height = STEP * Math.max(left.children.length, right.children.length);
		const width = clamp(node.clientWidth - left.clientWidth - right.clientWidth, 60, 460);
		const pen = canvas.getContext("2d");
		sharpen(canvas, pen, width, height);
		const chosen = store.rows.size ? store.rows : new Set([store.row]);
		for (const strong of [false, true]) {
			for (let i = 0; i < left.children.length; i++) {
				if (chosen.has(first + i) === strong) fan(pen, i, width, strong);
			}
		}
		[...left.children].forEach((name, i) => {
			name.classList.toggle("now", first + i === store.row);
			name.tabIndex = first + i === store.row ? 0 : -1;
			name.setAttribute("aria-selected", store.rows.has(first + i));
		});
	}

	function fan(pen, i, width, strong) {
		const { weight } = reading.row(chosenHead(reading), first + i);
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

	names();
	return { node, draw, moved() {
		if (store.row < first || store.row >= first + AROUND) names();
		draw();
	} };
}

function lineKey(event, list, t) {
	const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
	if (step) moveTo(t + step, store.column);
	else if (event.key === "Enter" || event.key === "x") toggle("rows", t);
	else return;
	event.preventDefault();
	event.stopPropagation();
	list.querySelector(".now")?.focus();
}
