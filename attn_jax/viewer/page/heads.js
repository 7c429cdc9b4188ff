// All heads at once: a small picture each, and what it comes to.

function headsView(reading, open) {
	const buttons = range(reading.layers * reading.heads).map((h) => headButton(reading, h, open));
	const node = el("div.heads", { style: { "--heads": reading.heads } }, buttons.map((button) => button.node));
	return { node, draw: () => buttons.forEach((button) => button.draw()), moved() {} };
}

function headButton(reading, h, open) {
	const canvas = el("canvas", { "aria-hidden": "true", width: 192, height: 192 });
	const name = headName(reading, h);
	const choose = () => { change({ layer: Math.floor(h / reading.heads), head: h % reading.heads }); open("matrix"); };
	const node = el("button.head", { "aria-label": `${name}: ${figures(reading, h)}`, "aria-pressed": String(h === chosenHead(reading)), onclick: choose },
		canvas, name, el("small", {}, figures(reading, h)));
	const draw = () => {
		const [picture, pen] = [reading.picture(h, 64), canvas.getContext("2d")];
		paint(pen, picture, new Scale({ most: greatestOf(picture.values), root: store.root }), 0, 0, 192, 192);
		hatch(pen, reading, (t) => reading.mask(h, t), 0, 0, 192, 192);
	};
	return { node, draw };
}
