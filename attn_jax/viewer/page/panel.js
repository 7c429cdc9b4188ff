// The panel beside a matrix: the keys that the selected queries attend to most.

const LISTED = 8; // most keys in the list

// The summed weights of the selected queries, or the weights of the query under the cursor.
function selectedRow(record) {
	const chosen = [...store.rows].filter((t) => t < record.T);
	if (!chosen.length) return { ...record.row(headIndex(record), store.row), of: [store.row] };
	const [weight, mask] = [new Float64Array(record.S), new Uint8Array(record.S)];
	let [total, rest] = [0, 0];
	for (const t of chosen) {
		const row = record.row(headIndex(record), t);
		row.weight.forEach((w, s) => {
			weight[s] += w;
			mask[s] ||= row.mask ? row.mask[s] : 1;
		});
		total += row.sum;
		rest += row.rest;
	}
	return { weight, mask, sum: total, rest, of: chosen };
}

function greatestKeys(weight, count) {
	const order = range(weight.length).filter((s) => !(weight[s] <= 0));
	return order.sort((a, b) => weight[b] - weight[a] || a - b).slice(0, count);
}

function bar(name, value, share) {
	return el("li", {}, name, el("span.bar", {}, el("i", { style: { width: `${clamp(100 * share, 0, 100) || 0}%` } })), el("b", {}, fourDigits(value)));
}

function panel(record) {
	const row = selectedRow(record);
	const top = greatestKeys(row.weight, LISTED);
	const most = Math.max(...top.map((s) => row.weight[s]), 1e-12);
	const others = row.weight.filter((w, s) => w > 0 && !top.includes(s));
	const names = row.of.length > 3 ? `${row.of.length} tokens` : row.of.map((t, i) => [i ? " + “" : "“", tokenNode(record.queries[t], 22), "”"]);
	const chosen = [...store.columns].filter((s) => s < record.S);
	const pairs = [[`other ${plural(record.S - top.length, "key")}`, fourDigits(sum(others) + row.rest)], [row.of.length > 1 ? "sum of rows" : "row sum", fourDigits(row.sum)]];
	if (row.of.length === 1 && record.normalised) pairs.push(["entropy", `${fourDigits(bits(row.weight))} bits`]);
	if (chosen.length) pairs.push([`on ${plural(chosen.length, "selected key")}`, fourDigits(sum(chosen.map((s) => row.weight[s])))]);
	const clear = el("button", { onclick: () => change({ rows: new Set(), columns: new Set() }) }, "Clear selection");
	return el("section.panel", { "aria-label": "Keys attended to" }, el("h2", {}, names, row.of.length > 1 ? " attend to (summed)" : " attends to"),
		el("ol.bars", {}, top.map((s) => bar(tokenNode(record.keys[s], 22), row.weight[s], row.weight[s] / most))), facts(pairs),
		el("p.hint", {}, store.rows.size + store.columns.size ? clear : "Click row or column labels, or press x or c, to sum over several tokens."));
}
