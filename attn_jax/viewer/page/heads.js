// All heads at once: for each a small matrix with the names of its tokens, and its statistics.

const LEGIBLE = 13; // least pixels of a row or column with a name
const SIDE = 64; // most rows or columns of a small matrix

function headsView(record, open) {
	const buttons = range(record.layers * record.heads).map((h) => headButton(record, h, open));
	const columns = record.heads > 1 ? record.heads : Math.min(record.layers, 4);
	const node = el("div.heads", { style: { "--heads": columns } }, buttons.map((button) => button.node));
	return { node, draw: () => buttons.forEach((button) => button.draw()), update() {} };
}

function headButton(record, h, open) {
	const { T, S, queries, keys } = record;
	const picture = record.picture(h, SIDE);
	const name = headName(record, h);
	const about = [...greatestPair(record, h), statistics(record, h)];
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

// The pair with the greatest weight, of the queries that may attend to more than one key. It comes from
// the rows, because a picture can be rounded to eight bits, and shows blocks of pairs of a longer text.
function greatestPair(record, h) {
	const { T, S, queries, keys } = record;
	if (Math.max(T, S) > SIDE) return [];
	let [greatest, query, key] = [0];
	range(T).forEach((t) => {
		const { weight, mask } = record.row(h, t);
		if ((mask ? sum(mask) : S) > 1) weight.forEach((w, s) => w > greatest && ([greatest, query, key] = [w, queries[t], keys[s]]));
	});
	return greatest ? [`“${short(query)}” attends most to “${short(key)}” (${fourDigits(greatest)})`] : [];
}
