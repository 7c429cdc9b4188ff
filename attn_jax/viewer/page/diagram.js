// The diagrams of the animation, one for each mode, and how each frame highlights them.

const MODES = { box: "Black box", last: "Unrolled, last state only", attention: "Unrolled, with attention" };

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

function framesOf({ record }, mode) {
	const frames = record.keys.map((_, j) => ({ kind: "encode", j, t: -1 }));
	frames.push({ kind: "pass", t: -1 });
	const kinds = mode === "attention" ? ["score", "softmax", "sum", "output"] : ["output"];
	for (let t = 0; t < record.T; t++) frames.push(...kinds.map((kind) => ({ kind, t })));
	return frames;
}

// The first entries of a vector as colours, with the numbers in a tooltip.
function vectorStrip({ shown }, rows, i, what, kind = "") {
	if (!rows) return el("small", { title: "not in the trace" }, "?");
	const part = [...rows.row(i).subarray(0, shown)];
	const scale = new Scale({ signed: true, most: rows.most });
	const tooltipData = { title: [what], lines: part.map((value, k) => [k + 1, fourDigits(value)]), note: rows.width > shown && `the first ${shown} of ${rows.width} entries` };
	const node = el(`span.strip${kind}`, { role: "img", "aria-label": spokenText(tooltipData), onpointerleave: hideTooltip,
		onpointerenter: () => showTooltip(tooltipData, node.getBoundingClientRect()) }, part.map((value) => el("i", { style: { background: scale.css(value) } })));
	return node;
}

function chip(token, kind) {
	return el(`span.chip.${kind}`, {}, tokenNode(token, 14));
}

// Negative steps are past, 0 is now, positive steps are to come.
function highlight(node, when) {
	node.classList.toggle("now", when === 0);
	node.classList.toggle("later", when > 0);
}

function blackBoxDiagram({ record }) {
	const source = record.keys.map((key) => chip(key, "source"));
	const target = record.queries.map((query) => chip(query, "target"));
	const boxes = ["encoder", "context", "decoder"].map((name) => el(`div.box.${name}`, {}, name));
	const node = el("div.blackbox", {}, el("div.tokens", {}, source), boxes, el("div.tokens", {}, target));
	return { node, show({ kind, j, t }) {
		source.forEach((one, i) => highlight(one, kind === "encode" ? i - j : -1));
		target.forEach((one, i) => highlight(one, t < 0 ? 1 : i - t));
		[kind === "encode", kind === "pass", t >= 0].forEach((now, i) => boxes[i].classList.toggle("now", now));
	} };
}

function lane(title, cells) {
	return el("div.lane", {}, el("b", {}, title), cells);
}

function unrolledDiagram(trace, mode) {
	const { record, annotations, states, contexts } = trace;
	const hasAttention = mode === "attention";
	const source = record.keys.map((key, j) => el("div.unit", {}, chip(key, "source"), vectorStrip(trace, annotations, j, `state ${j + 1}, after ${short(key)}`)));
	const gates = record.keys.map((_, j) => el("span.gate", {}, hasAttention || j === record.S - 1 ? "▼" : "✕"));
	const target = record.queries.map((query, t) => el("div.unit", {}, hasAttention && vectorStrip(trace, contexts, t, `context ${t + 1}`, ".blue"),
		vectorStrip(trace, states, t, `state after step ${t + 1}`), chip(query, "target")));
	const work = hasAttention ? attentionLanes(trace) : { lanes: [], show() {} };
	const likely = el("p.likely");
	const node = el("div.unrolled", { style: { "--columns": Math.max(record.S, record.T) } }, lane("Encoder", source), lane(hasAttention ? "All states kept" : "Last state only", gates),
		work.lanes, lane("Decoder", target), likely);
	return { node, show(frame) {
		const { kind, j, t } = frame;
		source.forEach((one, i) => highlight(one, kind === "encode" ? i - j : -1));
		gates.forEach((one) => highlight(one, { encode: 1, pass: 0 }[kind] ?? -1));
		target.forEach((one, i) => highlight(one, kind === "output" ? i - t : i < t ? -1 : 1));
		work.show(frame);
		fill(likely, kind === "output" ? candidates(trace, t) : "\u00a0");
		const lit = kind === "output" ? target[t] : source[t < 0 ? j : greatestKeys(trace.row(t).weight, 1)[0]];
		if (lit) node.parentNode.scrollLeft = lit.offsetLeft - node.parentNode.clientWidth / 2;
	} };
}

// Scores, weights and weighted states of one decode step.
function attentionLanes(trace) {
	const cells = (kind) => trace.record.keys.map(() => el(`span.work.${kind}`));
	const [scores, weights, vectors] = ["score", "alpha", "vector"].map(cells);
	const total = el("span.work.total");
	const lanes = [lane("scores e", scores), lane("softmax α", weights), lane("α · h", vectors), lane("Σ α · h = context", total)];
	return { lanes, show({ kind, t }) {
		const now = ["score", "softmax", "sum", "output"].indexOf(kind);
		lanes.forEach((one, i) => one.classList.toggle("off", now < Math.min(i, 2)));
		lanes.forEach((one, i) => one.classList.toggle("now", now === Math.min(i, 2)));
		if (t < 0) return lanes.forEach((one) => [...one.children].slice(1).forEach((cell) => fill(cell)));
		const { mask, logit, weight } = trace.row(t);
		scores.forEach((one, j) => fill(one, mask && !mask[j] ? "masked" : fourDigits(logit[j])));
		weights.forEach((one, j) => fill(one, fourDigits(weight[j])).style.setProperty("--share", `${100 * weight[j] || 0}%`));
		vectors.forEach((one, j) => fill(one, vectorStrip(trace, trace.annotations, j, `state ${j + 1}, opacity by weight`)).style.opacity = 0.08 + 0.92 * (weight[j] || 0));
		fill(total, vectorStrip(trace, trace.contexts, t, `context ${t + 1}`, ".blue"), el("small", {}, sumCheck(trace, t)));
	} };
}

// The weighted sum, computed again and compared with the context in the trace.
function sumCheck({ annotations, contexts, row }, t) {
	if (!annotations) return "the trace has no encoder states";
	const total = new Float64Array(contexts.width);
	row(t).weight.forEach((w, j) => annotations.row(j).forEach((h, e) => (total[e] += w * h)));
	const worst = total.reduce((most, x, e) => Math.max(most, Math.abs(x - contexts.row(t)[e])), 0);
	return `computed again on this page: equal within ${fourDigits(worst)}`;
}

function candidates({ logProbs, candidates }, t) {
	return ["most likely: ", candidates[t].map((name, i) => [i ? " · " : "", tokenNode(name, 22), ` ${fourDigits(Math.exp(logProbs.row(t)[i]))}`])];
}
