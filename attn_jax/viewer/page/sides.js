// Matrices that share a cursor: two readings, or weights and what is no weight.

function sideView(width, introduction, items) {
	const matrices = items.map(({ matrix }) => matrix);
	const figures = items.map(({ matrix, caption, legend }) => el("figure", {}, el("figcaption", {}, caption), matrix.node, matrix.scale.legend(legend)));
	const each = Math.min(width, items.length > 2 && width > 1000 ? width / 3 - 16 : 560);
	return { node: el("div", {}, el("p.facts", {}, introduction), el("div.side", {}, figures)),
		draw: () => matrices.forEach((matrix) => matrix.draw(each)),
		moved: (patch) => matrices.forEach((matrix) => (patch.rows || patch.columns ? matrix.draw(each) : matrix.place())) };
}

// A matrix of plain numbers, with a scale of its own.
function plainMatrix(name, reading, values, maskRow, lines) {
	const most = values.reduce((a, b) => Math.max(a, Math.abs(b) || 0), 0);
	return new Matrix({ name, reading, maskRow, picture: { height: reading.T, width: reading.S, values },
		scale: new Scale({ signed: values.some((value) => value < 0), most }),
		facts: (t, s) => ({ title: [quoted(reading.queries[t]), " · ", quoted(reading.keys[s])], lines: lines(t, s) }) });
}

// Mechanism against mechanism, and their difference if the tokens are the same.
function compareView(width) {
	const pair = store.readings.map((_, i) => current(i));
	const row = (i, t) => pair[i].row(chosenHead(pair[i]), t).weight;
	const items = pair.map((reading, i) => ({ matrix: headMatrix(reading, `${"AB"[i]} ${reading.name}`), legend: "weight",
		caption: [el("b", {}, "AB"[i]), " ", quoted(reading.name, 60)] }));
	const [a, b] = pair;
	if (JSON.stringify([a.queries, a.keys]) !== JSON.stringify([b.queries, b.keys])) {
		return sideView(width, "The tokens differ, so there is no difference to show: look for the same words.", items);
	}
	const [one, other] = pair.map((reading) => reading.picture(chosenHead(reading)).values);
	const lines = (t, s) => [["A", four(row(0, t)[s])], ["B", four(row(1, t)[s])], ["A − B", four(row(0, t)[s] - row(1, t)[s])]];
	if (Math.max(a.T, a.S) <= 512) {
		const matrix = plainMatrix("difference", a, one.map((w, i) => w - other[i]), (t) => a.mask(chosenHead(a), t), lines);
		items.push({ matrix, legend: "difference", caption: [el("b", {}, "A − B"), " weight by weight"] });
	}
	return sideView(width, differences(a.T, row), items);
}

// The total variation of two rows, in the mean.
function differences(T, row) {
	let [apart, agree] = [0, 0];
	for (let t = 0; t < T; t++) {
		const [one, other] = [row(0, t), row(1, t)];
		apart += sum(one.map((w, s) => Math.abs(w - other[s]))) / 2 / T;
		agree += greatest(one, 1)[0] === greatest(other, 1)[0];
	}
	return `In the mean ${four(apart)} of a row lies elsewhere; ${agree} of ${T} rows have their greatest weight on the same key.`;
}

// Other quantities for the same pairs: they are not weights, and each says which it is.
function measuresView(reading, width) {
	const h = (reading.layers - 1) * reading.heads;
	const lines = (t, s) => reading.measures.map(({ name, values }) => [name, four(values[t * reading.S + s])]);
	return sideView(width, data.caution, reading.measures.map(({ name, meaning, values, agreement }) => ({ legend: name,
		matrix: plainMatrix(name, reading, values, (t) => reading.mask(h, t), lines),
		caption: [el("b", {}, name), (agreement ?? null) !== null && ` τ = ${four(agreement)}`, el("small", {}, meaning)] })));
}
