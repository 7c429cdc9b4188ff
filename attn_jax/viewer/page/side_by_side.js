// Matrices side by side with one cursor: two records, or weights and other measures.

function sideView(width, introduction, items) {
	const matrices = items.map(({ matrix }) => matrix);
	const panels = items.map(({ matrix, caption, legend }) => el("figure", {}, el("figcaption", {}, caption), matrix.node, matrix.scale.legend(legend)));
	const each = Math.min(width, items.length > 2 && width > 1000 ? width / 3 - 16 : 560);
	return { node: el("div", {}, el("p.facts", {}, introduction), el("div.side", {}, panels)),
		draw: () => matrices.forEach((matrix) => matrix.draw(each)),
		update: (patch) => matrices.forEach((matrix) => (patch.rows || patch.columns ? matrix.draw(each) : matrix.placeCursor())) };
}

// A matrix of any numbers, with its own colour scale.
function plainMatrix(name, record, values, maskRow, lines) {
	const most = values.reduce((a, b) => Math.max(a, Math.abs(b) || 0), 0);
	return new Matrix({ name, record, maskRow, picture: { height: record.T, width: record.S, values },
		scale: new Scale({ signed: values.some((value) => value < 0), most }),
		facts: (t, s) => ({ title: [tokenNode(record.queries[t]), " · ", tokenNode(record.keys[s])], lines: lines(t, s) }) });
}

// The two records, and their difference if the tokens are the same.
function compareView(width) {
	const pair = store.records.map((_, i) => current(i));
	const row = (i, t) => pair[i].row(headIndex(pair[i]), t).weight;
	const items = pair.map((record, i) => ({ matrix: headMatrix(record, `${"AB"[i]} ${record.name}`), legend: "weight",
		caption: [el("b", {}, "AB"[i]), " ", tokenNode(record.name, 60)] }));
	const [a, b] = pair;
	if (JSON.stringify([a.queries, a.keys]) !== JSON.stringify([b.queries, b.keys])) {
		return sideView(width, "The tokens of the two records differ, so no difference is shown.", items);
	}
	const [one, other] = pair.map((record) => record.picture(headIndex(record)).values);
	const lines = (t, s) => [["A", fourDigits(row(0, t)[s])], ["B", fourDigits(row(1, t)[s])], ["A − B", fourDigits(row(0, t)[s] - row(1, t)[s])]];
	const maskedInBoth = (t) => {
		const [mask, second] = pair.map((record) => record.mask(headIndex(record), t));
		return mask && second && mask.map((one, s) => one || second[s]);
	};
	if (Math.max(a.T, a.S) <= 512) {
		const matrix = plainMatrix("difference", a, one.map((w, i) => w - other[i]), maskedInBoth, lines);
		items.push({ matrix, legend: "difference", caption: [el("b", {}, "A − B"), " for each weight"] });
	}
	return sideView(width, differences(a.T, row), items);
}

// The total variation distance of two rows, averaged, and how often their greatest keys agree.
function differences(T, row) {
	let [apart, agree] = [0, 0];
	for (let t = 0; t < T; t++) {
		const [one, other] = [row(0, t), row(1, t)];
		apart += sum(one.map((w, s) => Math.abs(w - other[s]))) / 2 / T;
		agree += greatestKeys(one, 1)[0] === greatestKeys(other, 1)[0];
	}
	return `On average, A and B place ${fourDigits(apart)} of a query’s weight on different keys; for ${agree} of ${T} queries the greatest weight is on the same key.`;
}

// Other quantities for the same pairs, each with its name and meaning.
function measuresView(record, width) {
	const h = (record.layers - 1) * record.heads;
	const lines = (t, s) => record.measures.map(({ name, values }) => [name, fourDigits(values[t * record.S + s])]);
	return sideView(width, data.caution, record.measures.map(({ name, meaning, values, agreement }) => ({ legend: name,
		matrix: plainMatrix(name, record, values, (t) => record.mask(h, t), lines),
		caption: [el("b", {}, name), (agreement ?? null) !== null && ` τ = ${fourDigits(agreement)}`, el("small", {}, meaning)] })));
}
