// All heads at once: a small picture and the statistics of each.

function headsView(record, open) {
	const buttons = range(record.layers * record.heads).map((h) => headButton(record, h, open));
	const node = el("div.heads", { style: { "--heads": record.heads } }, buttons.map((button) => button.node));
	return { node, draw: () => buttons.forEach((button) => button.draw()), update() {} };
}

function headButton(record, h, open) {
	const canvas = el("canvas", { "aria-hidden": "true", width: 192, height: 192 });
	const name = headName(record, h);
	const choose = () => { change({ layer: Math.floor(h / record.heads), head: h % record.heads }); open("matrix"); };
	const node = el("button.head", { "aria-label": `${name}: ${statistics(record, h)}`, "aria-pressed": String(h === headIndex(record)), onclick: choose },
		canvas, name, el("small", {}, statistics(record, h)));
	const draw = () => {
		const [picture, pen] = [record.picture(h, 64), canvas.getContext("2d")];
		paint(pen, picture, new Scale({ most: greatestOf(picture.values), root: store.root }), 0, 0, 192, 192);
		hatchMasked(pen, record, (t) => record.mask(h, t), 0, 0, 192, 192);
	};
	return { node, draw };
}
