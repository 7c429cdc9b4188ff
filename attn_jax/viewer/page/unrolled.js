// The unrolled diagrams: a column for each token, and between encoder and decoder the context, which
// stays visible while the columns of a long sentence scroll.

const TRAVELLING = 12; // most weighted states that travel to the context: those with the greatest weights

function unrolledDiagram(trace, mode) {
	const { record, annotations, states } = trace;
	const bridge = mode === "attention" ? attentionBridge(trace) : lastStateBridge(trace);
	const source = record.keys.map((key, j) => el("div.unit", {}, chip(key, "source"), vectorStrip(trace, annotations, j, `encoder state of “${short(key)}”`)));
	const target = record.queries.map((query, t) => el("div.unit", {}, bridge.context(t), vectorStrip(trace, states, t, `decoder state of step ${t + 1}`), chip(query, "target")));
	const sources = columns("Encoder", lane("Encoder", source), bridge.lanes);
	const targets = columns("Decoder", lane("Decoder", target));
	const likely = el("p.likely");
	const node = el("div.unrolled", {}, sources, bridge.pinned, targets, likely);
	return { node, show(frame) {
		const { kind, j, t } = frame;
		source.forEach((one, i) => highlight(one, kind === "encode" ? i - j : -1));
		target.forEach((one, i) => highlight(one, kind === "output" ? i - t : i < t ? -1 : 1));
		bridge.show(frame);
		fill(likely, kind === "output" ? candidates(trace, t) : "\u00a0");
		bringIntoView(sources, source[j ?? bridge.origin(t)]);
		bringIntoView(targets, target[Math.max(t, 0)]);
	}, flights: (frame) => bridge.flights(frame, source, target) };
}

// Lanes that scroll together if they are wider than the page.
function columns(name, ...lanes) {
	const count = lanes.flat()[0].children.length - 1;
	return el("div.scroller.columns", { tabindex: 0, role: "group", "aria-label": name, style: { "--columns": count } }, lanes);
}

function lane(title, cells) {
	return el("div.lane", {}, el("b", {}, title), cells);
}

function bringIntoView(scroller, node) {
	if (!node) return;
	const [{ right }, inner, { right: left }] = [scroller, node, scroller.querySelector("b")].map((one) => one.getBoundingClientRect());
	if (inner.left < left || inner.right > right) scroller.scrollLeft += (inner.left + inner.right - left - right) / 2;
}

const stripIn = (node) => node.querySelector(".strip");

// The middle of the diagram of a model with attention: scores, weights and weighted states of a step.
function attentionBridge(trace) {
	const { record, annotations, contexts } = trace;
	const cells = (kind) => record.keys.map(() => el(`span.work.${kind}`));
	const [scores, weights, vectors] = ["score", "alpha", "vector"].map(cells);
	const kept = record.keys.map((key, j) => el("span.work", {}, vectorStrip(trace, annotations, j, `kept state of “${short(key)}”`)));
	const lanes = [lane("states kept", kept), lane("scores e", scores), lane("softmax α", weights), lane("α · h", vectors)];
	const context = (t) => vectorStrip(trace, contexts, t, `context of step ${t + 1}`, ".blue");
	const weighted = (t, j) => vectorStrip(trace, annotations, j, `weight × state of “${short(record.keys[j])}”`, "", trace.row(t).weight[j]);
	const [slot, words] = [el("span.slot"), el("span.words")];
	const origin = (t) => greatestKeys(trace.row(Math.max(t, 0)).weight, 1)[0];
	return { lanes, context, origin, pinned: pinned("Σ α · h = context", slot, words), show({ kind, t }) {
		const now = ["score", "softmax", "sum", "output"].indexOf(kind);
		kept.forEach((one) => highlight(one, { encode: 1, pass: 0 }[kind] ?? -1));
		[scores, weights, vectors, [slot]].forEach((lane, i) => lane.forEach((one) => highlight(one, Math.min(i, 2) - now)));
		fill(slot, context(Math.max(t, 0)));
		fill(words, contextWords(trace, kind, t));
		const { mask, logit, weight } = trace.row(Math.max(t, 0));
		scores.forEach((one, j) => {
			const masked = mask && !mask[j];
			[one, weights[j], vectors[j]].forEach((cell) => cell.classList.toggle("masked", masked));
			fill(one, now < 0 ? "" : masked ? "masked" : logit ? fourDigits(logit[j]) : "?");
			fill(weights[j], now < 1 ? "" : fourDigits(weight[j])).style.setProperty("--share", `${now < 1 ? 0 : 100 * weight[j] || 0}%`);
			fill(vectors[j], weighted(Math.max(t, 0), j));
		});
	}, flights({ kind, t }, source, target) {
		if (kind === "pass") return kept.map((one, j) => ({ node: vectorStrip(trace, annotations, j, ""), from: stripIn(source[j]), to: stripIn(one) }));
		if (kind === "sum") return greatestKeys(trace.row(t).weight, TRAVELLING).map((j) => ({ node: weighted(t, j), from: vectors[j], to: stripIn(slot) }));
		return kind === "output" ? [{ node: context(t), from: stripIn(slot), to: stripIn(target[t]) }] : [];
	} };
}

// The middle of the diagram of a model without attention: the last encoder state is the context.
function lastStateBridge(trace) {
	const { record, annotations, contexts, onlyLast } = trace;
	const last = record.S - 1;
	const key = record.keys[last];
	const strip = (what) => vectorStrip(trace, annotations ?? (onlyLast ? contexts : null), annotations ? last : 0, what, ".blue");
	const gates = record.keys.map((_, j) => el("span.gate", { role: "img", "aria-label": j === last ? "passed on" : "not passed on" }, j === last ? "▼" : "✕"));
	const [slot, words] = [el("span.slot", {}, strip("context of every step")), el("span.words")];
	return { lanes: [lane("states passed on", gates)], context: () => strip("context of every step"), origin: () => last,
		pinned: pinned("last state = context", slot, words), show({ kind }) {
			gates.forEach((one) => highlight(one, { encode: 1, pass: 0 }[kind] ?? -1));
			highlight(slot, { encode: 1, pass: 0 }[kind] ?? -1);
			fill(words, kind === "encode" ? "not computed yet" : ["the encoder state after “", tokenNode(key, 14), "”, the same at every step; ", onlyLast ? "no scores and no softmax are computed" : "a decoder without attention needs no scores and no softmax"]);
		}, flights({ kind, t }, source, target) {
			if (kind === "pass") return [{ node: strip(""), from: stripIn(source[last]), to: stripIn(slot) }];
			return kind === "output" ? [{ node: strip(""), from: stripIn(slot), to: stripIn(target[t]) }] : [];
		} };
}

function pinned(title, slot, words) {
	return el("div.pinned", { role: "group", "aria-label": "Context" }, el("b", {}, title), slot, words);
}

// The keys with the greatest scores or weights, and whether the weighted sum is the context of the trace.
function contextWords(trace, kind, t) {
	if (t < 0) return "not computed yet";
	const { mask, logit, weight } = trace.row(t);
	if (kind === "score" && !logit) return "";
	const values = kind === "score" ? Array.from(logit, (e, j) => (mask && !mask[j] ? -Infinity : e)) : weight;
	const order = range(trace.record.S).sort((a, b) => values[b] - values[a] || a - b).slice(0, 3);
	const list = order.map((j, i) => [i ? " · " : "", "“", tokenNode(trace.record.keys[j], 14), `” ${fourDigits(values[j])}`]);
	const check = kind === "sum" || kind === "output" ? el("small", {}, sumCheck(trace, t)) : "";
	return [`greatest ${kind === "score" ? "scores" : "weights"}: `, list, check];
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
