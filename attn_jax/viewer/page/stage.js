// The stage of the animation: what stands on it in each mode, and how a frame lights it.

const MODES = { box: "Black box", last: "Unrolled, last state only", attention: "Unrolled, with attention" };

// The numbers of a decode, by rows.
function scriptOf(reading) {
	const { annotations, states, contexts, log_probs, candidates, only_last, shown } = reading.decode;
	const rows = (packed) => {
		if (!packed) return null;
		const { shape: [, width], values } = unpack(packed);
		const most = values.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
		return { width, most, row: (i) => values.subarray(i * width, (i + 1) * width) };
	};
	return { reading, candidates, onlyLast: only_last, shown, read: (t) => reading.row(0, t),
		annotations: rows(annotations), states: rows(states), contexts: rows(contexts), logProbs: rows(log_probs) };
}

function framesOf({ reading }, mode) {
	const frames = reading.keys.map((_, j) => ({ kind: "read", j, t: -1 }));
	frames.push({ kind: "cross", t: -1 });
	const kinds = mode === "attention" ? ["ask", "weigh", "sum", "say"] : ["say"];
	for (let t = 0; t < reading.T; t++) frames.push(...kinds.map((kind) => ({ kind, t })));
	return frames;
}

// The first numbers of a vector as colours; the numbers themselves are told.
function strip({ shown }, rows, i, what, kind = "") {
	if (!rows) return el("small", { title: "not in the trace" }, "?");
	const part = [...rows.row(i).subarray(0, shown)];
	const scale = new Scale({ signed: true, most: rows.most });
	const told = { title: [what], lines: part.map((value, k) => [k + 1, four(value)]), note: rows.width > shown && `the first ${shown} of ${rows.width} numbers` };
	const node = el(`span.strip${kind}`, { role: "img", "aria-label": spoken(told), onpointerleave: hush,
		onpointerenter: () => tell(told, node.getBoundingClientRect()) }, part.map((value) => el("i", { style: { background: scale.css(value) } })));
	return node;
}

function chip(token, kind) {
	return el(`span.chip.${kind}`, {}, quoted(token, 14));
}

// Before 0 is over, 0 is now, after 0 is to come.
function light(node, when) {
	node.classList.toggle("now", when === 0);
	node.classList.toggle("later", when > 0);
}

function boxStage({ reading }) {
	const source = reading.keys.map((key) => chip(key, "source"));
	const target = reading.queries.map((query) => chip(query, "target"));
	const boxes = ["encoder", "context", "decoder"].map((name) => el(`div.box.${name}`, {}, name));
	const node = el("div.black", {}, el("div.pile", {}, source), boxes, el("div.pile", {}, target));
	return { node, show({ kind, j, t }) {
		source.forEach((one, i) => light(one, kind === "read" ? i - j : -1));
		target.forEach((one, i) => light(one, t < 0 ? 1 : i - t));
		[kind === "read", kind === "cross", t >= 0].forEach((now, i) => boxes[i].classList.toggle("now", now));
	} };
}

function lane(title, cells) {
	return el("div.lane", {}, el("b", {}, title), cells);
}

function unrolledStage(script, mode) {
	const { reading, annotations, states, contexts } = script;
	const looks = mode === "attention";
	const source = reading.keys.map((key, j) => el("div.unit", {}, chip(key, "source"), strip(script, annotations, j, `state ${j + 1}, of ${short(key)}`)));
	const gates = reading.keys.map((_, j) => el("span.gate", {}, looks || j === reading.S - 1 ? "▼" : "✕"));
	const target = reading.queries.map((query, t) => el("div.unit", {}, looks && strip(script, contexts, t, `context ${t + 1}`, ".blue"),
		strip(script, states, t, `state after step ${t + 1}`), chip(query, "target")));
	const work = looks ? workLanes(script) : { lanes: [], show() {} };
	const likely = el("p.likely");
	const node = el("div.unrolled", { style: { "--columns": Math.max(reading.S, reading.T) } }, lane("Encoder", source), lane(looks ? "All states queue" : "Only the last crosses", gates),
		work.lanes, lane("Decoder", target), likely);
	return { node, show(frame) {
		const { kind, j, t } = frame;
		source.forEach((one, i) => light(one, kind === "read" ? i - j : -1));
		gates.forEach((one) => light(one, { read: 1, cross: 0 }[kind] ?? -1));
		target.forEach((one, i) => light(one, kind === "say" ? i - t : i < t ? -1 : 1));
		work.show(frame);
		fill(likely, kind === "say" ? candidates(script, t) : "\u00a0");
		const lit = kind === "say" ? target[t] : source[t < 0 ? j : greatest(script.read(t).weight, 1)[0]];
		if (lit) node.parentNode.scrollLeft = lit.offsetLeft - node.parentNode.clientWidth / 2;
	} };
}

// Scores, weights and weighted states of one step.
function workLanes(script) {
	const cells = (kind) => script.reading.keys.map(() => el(`span.work.${kind}`));
	const [scores, weights, vectors] = ["score", "alpha", "vector"].map(cells);
	const total = el("span.work.total");
	const lanes = [lane("scores e", scores), lane("softmax α", weights), lane("α · h", vectors), lane("Σ α · h = context", total)];
	return { lanes, show({ kind, t }) {
		const stage = ["ask", "weigh", "sum", "say"].indexOf(kind);
		lanes.forEach((one, i) => one.classList.toggle("off", stage < Math.min(i, 2)));
		lanes.forEach((one, i) => one.classList.toggle("now", stage === Math.min(i, 2)));
		if (t < 0) return lanes.forEach((one) => [...one.children].slice(1).forEach((cell) => fill(cell)));
		const { mask, logit, weight } = script.read(t);
		scores.forEach((one, j) => fill(one, mask && !mask[j] ? "masked" : four(logit[j])));
		weights.forEach((one, j) => fill(one, four(weight[j])).style.setProperty("--share", `${100 * weight[j] || 0}%`));
		vectors.forEach((one, j) => fill(one, strip(script, script.annotations, j, `state ${j + 1}, drawn as strong as its weight`)).style.opacity = 0.08 + 0.92 * (weight[j] || 0));
		fill(total, strip(script, script.contexts, t, `context ${t + 1}`, ".blue"), el("small", {}, checked(script, t)));
	} };
}

// The sum computed here, held against the context that the trace brought.
function checked({ annotations, contexts, read }, t) {
	if (!annotations) return "the states that were read are not in the trace";
	const total = new Float64Array(contexts.width);
	read(t).weight.forEach((w, j) => annotations.row(j).forEach((h, e) => (total[e] += w * h)));
	const worst = total.reduce((most, x, e) => Math.max(most, Math.abs(x - contexts.row(t)[e])), 0);
	return `summed again here: within ${four(worst)}`;
}

function candidates({ logProbs, candidates }, t) {
	return ["likeliest: ", candidates[t].map((name, i) => [i ? " · " : "", quoted(name, 22), ` ${four(Math.exp(logProbs.row(t)[i]))}`])];
}
