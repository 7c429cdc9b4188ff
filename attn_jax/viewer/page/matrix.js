// A matrix of queries (rows) and keys (columns): a canvas with all cells, and one HTML element, the
// cursor, which has the focus and moves over them.

const FEW = 96; // most rows or columns that get token labels
const FONT = "12px ui-sans-serif, system-ui, sans-serif";

class Matrix {
	// Options: name, record, picture, scale, maskRow(t), facts(t, s), strongest(t, from, to).
	constructor(options) {
		Object.assign(this, options);
		const { T, S, queries, keys } = this.record;
		this.axes = [{ names: queries, count: T, chosen: "rows" }, { names: keys, count: S, chosen: "columns" }];
		this.canvas = el("canvas", { "aria-hidden": "true" });
		this.cell = el("div.cursor", { id: `cell ${this.name}`, role: "gridcell", tabindex: 0 });
		this.line = el("div", { role: "row" }, this.cell);
		const grid = el("div", { role: "grid", "aria-label": this.name, "aria-rowcount": T, "aria-colcount": S }, this.line);
		this.bands = [el("div.band"), el("div.band")];
		this.tags = [el("div.tag"), el("div.tag")];
		this.box = el("div.matrix", {}, this.canvas, this.bands, this.tags, grid);
		this.node = el("div.scroller", {}, this.box);
		this.box.onpointermove = (event) => this.hover(event);
		this.box.onpointerleave = hideTooltip;
		this.box.onpointerdown = (event) => this.press(event);
		this.cell.onkeydown = (event) => this.onKey(event);
		this.cell.onfocus = () => this.showFacts(true);
		this.cell.onblur = hideTooltip;
	}

	// Computes the size of labels and cells from the width of the page.
	measure(width, pen) {
		pen.font = FONT;
		const [rows, columns] = this.axes;
		const widest = ({ names, count }) => count > FEW ? 80 : Math.max(...names.map((name) => pen.measureText(short(name, 16)).width));
		const left = widest(rows) + 22;
		this.slanted = columns.count <= FEW && widest(columns) > 14;
		const [top, right] = this.slanted ? [widest(columns) * 0.82 + 24, widest(columns) * 0.6 + 8] : [24, 8];
		const room = Math.min(width, 880) - left - right;
		const w = columns.count > FEW ? Math.max(room, 180) / columns.count : clamp(room / columns.count, 15, 46);
		const h = rows.count > FEW ? clamp(room, 180, 640) / rows.count : clamp(w, 15, 34);
		this.size = { left, top, w, h, right, width: w * columns.count, height: h * rows.count };
	}

	draw(width) {
		const pen = this.canvas.getContext("2d");
		this.measure(width, pen);
		const { left, top, right } = this.size;
		const [across, down] = [left + this.size.width + right, top + this.size.height + 6].map(Math.ceil);
		sizeCanvas(this.canvas, pen, across, down);
		Object.assign(this.box.style, { width: `${across}px`, height: `${down}px` });
		paint(pen, this.picture, this.scale, left, top, this.size.width, this.size.height);
		hatchMasked(pen, this.record, this.maskRow, left, top, this.size.width, this.size.height);
		if (this.axes.every(({ count }) => count <= FEW)) this.drawCells(pen);
		pen.strokeStyle = colour("line");
		pen.strokeRect(left - 0.5, top - 0.5, this.size.width + 1, this.size.height + 1);
		this.drawLabels(pen);
		this.placeCursor();
	}

	// Lines between cells, and numbers in cells that are wide enough.
	drawCells(pen) {
		const { left, top, w, h } = this.size;
		pen.strokeStyle = colour("line");
		pen.lineWidth = 0.4;
		pen.textAlign = "center";
		pen.textBaseline = "middle";
		pen.font = FONT.replace("12", w >= 38 ? 11 : 9.5);
		this.picture.values.forEach((value, i) => {
			const [t, s] = [Math.floor(i / this.record.S), i % this.record.S];
			pen.strokeRect(left + s * w, top + t * h, w, h);
			const mask = this.maskRow(t);
			if ((mask && !mask[s]) || (w < 30 && Number.isFinite(value))) return;
			pen.fillStyle = this.scale.textColour(value);
			pen.fillText(Number.isNaN(value) ? "✕" : twoDigits(value), left + (s + 0.5) * w, top + (t + 0.5) * h);
		});
	}

	drawLabels(pen) {
		const { left, top, w, h } = this.size;
		pen.font = FONT;
		pen.fillStyle = colour("ink");
		pen.textBaseline = "middle";
		this.axes.forEach(({ names, count, chosen }, axis) => {
			pen.textAlign = axis === 0 ? "right" : this.slanted ? "left" : "center";
			for (const i of ticks(count)) {
				const text = (store[chosen].has(i) ? "● " : "") + (count > FEW ? i : short(names[i], 16));
				pen.save();
				if (axis === 0) pen.translate(left - 6, top + (i + 0.5) * h);
				else pen.translate(left + (i + 0.5) * w, top - 8);
				if (axis === 1 && this.slanted) pen.rotate(-0.96);
				pen.fillText(text, 0, 0);
				pen.restore();
			}
		});
	}

	// Row and column under the pointer; -1 over the labels.
	cellAt(event) {
		const rect = this.box.getBoundingClientRect();
		const steps = [(event.clientY - rect.top - this.size.top) / this.size.h, (event.clientX - rect.left - this.size.left) / this.size.w];
		return steps.map((step, axis) => (step < 0 ? -1 : Math.min(Math.floor(step), this.axes[axis].count - 1)));
	}

	hover(event) {
		const [t, s] = this.cellAt(event);
		if (t < 0 || s < 0) return hideTooltip();
		this.move(t, s);
		this.showFacts(false);
	}

	press(event) {
		const [t, s] = this.cellAt(event);
		if (t >= 0 && s >= 0) {
			event.preventDefault();
			this.move(t, s);
			this.cell.focus({ preventScroll: true });
		} else if (t >= 0) toggle("rows", t);
		else if (s >= 0) toggle("columns", s);
	}

	// In a long text a point is many cells: the cursor goes to the greatest weight of them.
	move(t, s) {
		const block = Math.ceil(1 / this.size.w);
		moveCursor(t, block > 1 && this.strongest ? this.strongest(t, s, Math.min(s + block, this.record.S)) : s);
	}

	onKey(event) {
		const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], PageUp: [-16, 0], PageDown: [16, 0],
			Home: [0, -Infinity], End: [0, Infinity] }[event.key];
		if (!step) return;
		event.preventDefault();
		event.stopPropagation();
		moveCursor(store.row + step[0], store.column + step[1]);
		this.showFacts(true);
	}

	showFacts(isSpoken) {
		const facts = this.facts(store.row, store.column);
		showTooltip(facts, this.cell.getBoundingClientRect());
		if (isSpoken) announce(spokenText(facts));
	}

	// Moves the cursor's marks and labels to its row and column.
	placeCursor() {
		if (!this.size) return;
		const { left, top, w, h, width, height } = this.size;
		const at = [store.row, store.column];
		const [x, y] = [left + at[1] * w, top + at[0] * h];
		setBox(this.cell, x, y, Math.max(w, 4), Math.max(h, 4));
		setBox(this.bands[0], left, y, width, Math.max(h, 4));
		setBox(this.bands[1], x, top, Math.max(w, 4), height);
		this.axes.forEach(({ names, count }, axis) => fill(this.tags[axis], count > FEW ? `${at[axis]} ${short(names[at[axis]], 14)}` : ""));
		setBox(this.tags[0], left, y + h / 2);
		setBox(this.tags[1], x + w / 2, top);
		this.line.setAttribute("aria-rowindex", store.row + 1);
		this.cell.setAttribute("aria-colindex", store.column + 1);
		this.cell.setAttribute("aria-label", spokenText(this.facts(store.row, store.column)));
	}
}

function setBox(node, left, top, width, height) {
	const sides = Object.entries({ left, top, width, height }).filter(([, side]) => side !== undefined);
	for (const [name, side] of sides) node.style[name] = `${side}px`;
}

function ticks(count) {
	const step = count <= FEW ? 1 : 2 ** Math.round(Math.log2(count / 8));
	return range(Math.ceil(count / step)).map((i) => i * step);
}
