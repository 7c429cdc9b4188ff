// What the diagrams of the animation share: the arrays of a trace, frames, vectors, and the black box.

const MODES = { box: "Black box", last: "Last state only", attention: "With attention" };

// The arrays of a trace, row by row.
function traceOf(record) {
	const { annotations, states, contexts, log_probs, candidates, only_last, shown } = record.decode;
	const rows = (packed) => {
		if (!packed) return null;
		const { shape: [, width], values } = arrayFromJson(packed);
		const most = values.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
		return { width, most, row: (i) => values.subarray(i * width, (i + 1) * width) };
	};
	return { record, candidates, onlyLast: only_last, shown, row: (t) => record.row(0, t),
		annotations: rows(annotations), states: rows(states), contexts: rows(contexts), logProbs: rows(log_probs) };
}

// A model without attention computes no scores, so it has no diagram with attention.
function modesOf({ onlyLast }) {
	return onlyLast ? ["box", "last"] : ["box", "last", "attention"];
}

function framesOf({ record }, mode) {
	const frames = record.keys.map((_, j) => ({ kind: "encode", j, t: -1 }));
	frames.push({ kind: "pass", t: -1 });
	const kinds = mode === "attention" ? ["score", "softmax", "sum", "output"] : ["output"];
	for (let t = 0; t < record.T; t++) frames.push(...kinds.map((kind) => ({ kind, t })));
	return frames;
}

// The first entries of a vector as colours, with the numbers in a tooltip.
function vectorStrip({ shown }, rows, i, what, kind = "", factor = 1) {
	if (!rows) return el("span.strip", { title: "not in the trace" }, "?");
	const part = [...rows.row(i).subarray(0, shown)].map((value) => factor * value);
	const scale = (rows.scale ??= new Scale({ signed: true, most: rows.most }));
	const tooltipData = { title: [what], lines: part.map((value, k) => [k + 1, fourDigits(value)]), note: rows.width > shown && `the first ${shown} of ${rows.width} entries` };
	const node = el(`span.strip${kind}`, { role: "img", "aria-label": spokenText(tooltipData), onpointerleave: hideTooltip,
		onpointerenter: () => showTooltip(tooltipData, node.getBoundingClientRect()) }, part.map((value) => el("i", { style: { background: scale.css(value) } })));
	return node;
}

function chip(token, kind) {
	return el(`span.chip.${kind}`, {}, tokenNode(token, 14));
}

// Negative steps are past, 0 is now. Positive steps are to come: their results are not computed yet.
function highlight(node, when) {
	node.classList.toggle("now", when === 0);
	node.classList.toggle("later", when > 0);
	node.inert = when > 0;
}

// A diagram has `node`, `show(frame)`, and `flights(frame)`: the copies that travel when the frame begins.
function blackBoxDiagram({ record }) {
	const source = record.keys.map((key) => chip(key, "source"));
	const target = record.queries.map((query) => chip(query, "target"));
	const boxes = ["encoder", "context", "decoder"].map((name) => el(`div.box.${name}`, {}, name));
	const node = el("div.blackbox", {}, el("div.tokens", {}, source), boxes, el("div.tokens", {}, target));
	return { node, show({ kind, j, t }) {
		source.forEach((one, i) => highlight(one, kind === "encode" ? i - j : -1));
		target.forEach((one, i) => highlight(one, t < 0 ? 1 : i - t));
		[kind === "encode", kind === "pass", t >= 0].forEach((now, i) => boxes[i].classList.toggle("now", now));
	}, flights({ kind, j, t }) {
		if (kind === "encode") return [{ node: chip(record.keys[j], "source"), from: source[j], to: boxes[0], arrives: false }];
		if (kind === "pass") return [{ node: el("div.box.context.now", {}, "context"), from: boxes[0], to: boxes[1] }];
		return [{ node: chip(record.queries[t], "target"), from: boxes[2], to: target[t] }];
	} };
}
