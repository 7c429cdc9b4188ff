// All heads at once: for each a small matrix with the names of its tokens, and its statistics.

const LEGIBLE = 13; // least pixels of a row or column with a name

function headsView(record, open) {
	const buttons = range(record.layers * record.heads).map((h) => headButton(record, h, open));
	const columns = record.heads > 1 ? record.heads : Math.min(record.layers, 4);
	const node = el("div.heads", { style: { "--heads": columns } }, buttons.map((button) => button.node));
	return { node, draw: () => buttons.forEach((button) => button.draw()), update() {} };
}

function headButton(record, h, open) {
	const { T, S, queries, keys } = record;
	const picture = record.picture(h, 64);
	const name = headName(record, h);
	const about = [...greatestPair(record, h, picture), statistics(record, h)];
	const canvas = el("canvas", { "aria-hidden": "true", onpointerleave: hideTooltip, onpointermove: showPair });
	const choose = () => { change({ layer: Math.floor(h / record.heads), head: h % record.heads }); open("matrix"); };
	const node = el("button.head", { "aria-label": spoken([name, ...about].join(": ")), "aria-pressed": String(h === headIndex(record)), onclick: choose },
		canvas, name, about.map((line) => el("small", {}, line)));
	let [left, top, side] = [0, 0, 0];

	function showPair({ offsetX, offsetY }) {
		const [t, s] = [((offsetY - top) * T) / side, ((offsetX - left) * S) / side].map(Math.floor);
		if (t < 0 || s < 0 || t >= T || s >= S) hideTooltip();
		else showTooltip(pairFacts(record, h, t, s), canvas.getBoundingClientRect());
	}

	function draw() {
		const pen = canvas.getContext("2d");
		const width = canvas.clientWidth;
		pen.font = FONT;
		const labels = (names) => 8 + Math.max(...names.map((name) => pen.measureText(short(name, 10)).width));
		const least = LEGIBLE * Math.max(T, S);
		[left, top] = least < width ? [labels(queries), labels(keys)] : [0, 0];
		if (width - left < least) [left, top] = [0, 0];
		side = width - left;
		sizeCanvas(canvas, pen, width, top + side);
		paint(pen, picture, new Scale({ most: greatestOf(picture.values), root: store.root }), left, top, side, side);
		hatchMasked(pen, record, (t) => record.mask(h, t), left, top, side, side);
		if (left) drawNames(pen);
	}

	function drawNames(pen) {
		pen.font = FONT;
		pen.fillStyle = colour("ink");
		pen.textBaseline = "middle";
		pen.textAlign = "right";
		queries.forEach((query, t) => pen.fillText(short(query, 10), left - 4, top + ((t + 0.5) * side) / T));
		pen.translate(left, top - 4);
		pen.rotate(Math.PI / 2);
		keys.forEach((key, s) => pen.fillText(short(key, 10), 0, -((s + 0.5) * side) / S));
	}

	return { node, draw };
}

// The pair with the greatest weight, of the queries that attend to more than one key. Pictures of a
// longer text show blocks of pairs.
function greatestPair(record, h, { height, width, values }) {
	const { T, S, queries, keys } = record;
	if (height < T || width < S) return [];
	const hasChoice = range(T).map((t) => sum(record.mask(h, t) ?? keys.map(() => 1)) > 1);
	const order = greatestKeys(values.map((value, i) => (hasChoice[Math.floor(i / S)] ? value : 0)), 1);
	return order.map((i) => `“${short(queries[Math.floor(i / S)])}” attends most to “${short(keys[i % S])}” (${fourDigits(values[i])})`);
}
