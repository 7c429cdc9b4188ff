// The pane beside a matrix: what one query reads, or several together.

const LISTED = 8;

// The chosen queries' weights, summed; or the cursor's.
function chosenRow(reading) {
	const chosen = [...store.rows].filter((t) => t < reading.T);
	if (!chosen.length) return { ...reading.row(chosenHead(reading), store.row), of: [store.row] };
	const weight = new Float64Array(reading.S);
	let [total, rest] = [0, 0];
	for (const t of chosen) {
		const row = reading.row(chosenHead(reading), t);
		row.weight.forEach((w, s) => (weight[s] += w));
		total += row.sum;
		rest += row.rest;
	}
	return { weight, sum: total, rest, of: chosen };
}

function greatest(weight, count) {
	const order = range(weight.length).filter((s) => !(weight[s] <= 0));
	return order.sort((a, b) => weight[b] - weight[a] || a - b).slice(0, count);
}

function bar(name, value, share) {
	return el("li", {}, name, el("span.bar", {}, el("i", { style: { width: `${clamp(100 * share, 0, 100) || 0}%` } })), el("b", {}, four(value)));
}

function panel(reading) {
	const row = chosenRow(reading);
	const top = greatest(row.weight, LISTED);
	const most = Math.max(...top.map((s) => row.weight[s]), 1e-12);
	const others = row.weight.filter((w, s) => w > 0 && !top.includes(s));
	const names = row.of.length > 3 ? `${row.of.length} tokens` : row.of.map((t, i) => [i ? " + " : "", quoted(reading.queries[t], 22)]);
	const chosen = [...store.columns].filter((s) => s < reading.S);
	const pairs = [[`the other ${reading.S - top.length}`, four(sum(others) + row.rest)], [row.of.length > 1 ? "rows’ sum" : "row’s sum", four(row.sum)]];
	if (row.of.length === 1 && reading.normalised) pairs.push(["entropy", `${four(bits(row.weight))} bits`]);
	if (chosen.length) pairs.push([`on ${plural(chosen.length, "selected key")}`, four(sum(chosen.map((s) => row.weight[s])))]);
	const clear = el("button", { onclick: () => change({ rows: new Set(), columns: new Set() }) }, "Clear selection");
	return el("section.panel", { "aria-label": "What the row reads" }, el("h2", {}, names, row.of.length > 1 ? " read, summed" : " reads"),
		el("ol.bars", {}, top.map((s) => bar(quoted(reading.keys[s], 22), row.weight[s], row.weight[s] / most))), facts(pairs),
		el("p.hint", {}, store.rows.size + store.columns.size ? clear : "Click labels (x, c) to sum several tokens."));
}
