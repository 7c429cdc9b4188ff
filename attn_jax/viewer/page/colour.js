// Colour scales, pictures and hatching, with the colours of the style sheet.

function colour(name) {
	return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function rgbOf(hex) {
	return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

// Maps values to colours; `root` colours by the square root, which emphasises small weights.
class Scale {
	constructor({ signed = false, most = 1, root = false }) {
		Object.assign(this, { signed, most: most || 1, root, nan: rgbOf(colour("nan")) });
		const stops = colour(signed ? "signed" : "weight").split(" ").map(rgbOf);
		this.table = range(256).map((i) => {
			const at = (i / 255) * 6;
			const low = Math.min(Math.floor(at), 5);
			return stops[low].map((c, k) => Math.round(c + (at - low) * (stops[low + 1][k] - c)));
		});
	}

	rgb(value) {
		if (!Number.isFinite(value)) return this.nan;
		const share = clamp(Math.abs(value) / this.most, 0, 1);
		const scaled = this.root ? Math.sqrt(share) : share;
		return this.table[Math.round(255 * (this.signed ? 0.5 + (Math.sign(value) * scaled) / 2 : scaled))];
	}

	css(value) {
		return `rgb(${this.rgb(value).join(" ")})`;
	}

	// A text colour with contrast on the colour of a value.
	textColour(value) {
		const [r, g, b] = this.rgb(value);
		return 0.299 * r + 0.587 * g + 0.114 * b > 135 ? "#10161c" : "#fff";
	}

	legend(label) {
		const value = (at) => this.most * (this.signed ? 2 * at - 1 : this.root ? at * at : at);
		const ends = [0, 0.5, 1].map((at) => fourDigits(value(at)));
		return el("div.legend", { role: "img", "aria-label": `${label}: ${ends.join(", ")}` }, el("span", {}, label + (this.root ? " (colour by its square root)" : "")),
			el("div.ramp", { style: { background: `linear-gradient(to right, ${range(17).map((i) => this.css(value(i / 16)))})` } }),
			el("div.ends", {}, ends.map((end) => el("span", {}, end))));
	}
}

// Sizes a canvas in CSS pixels, at the resolution of the screen.
function sizeCanvas(canvas, pen, width, height) {
	const ratio = devicePixelRatio || 1;
	[canvas.width, canvas.height] = [width * ratio, height * ratio];
	setBox(canvas, 0, 0, width, height);
	pen.scale(ratio, ratio);
}

function paint(pen, picture, scale, x, y, width, height) {
	const image = new ImageData(picture.width, picture.height);
	picture.values.forEach((value, i) => image.data.set([...scale.rgb(value), 255], 4 * i));
	const buffer = el("canvas", { width: picture.width, height: picture.height });
	buffer.getContext("2d").putImageData(image, 0, 0);
	pen.imageSmoothingEnabled = false;
	pen.drawImage(buffer, x, y, width, height);
}

// Hatches masked pairs, to tell them from weights of zero.
function hatchMasked(pen, { T, S }, maskRow, x, y, width, height) {
	const area = new Path2D();
	const [w, h, step] = [width / S, height / T, Math.ceil(T / 512)];
	for (let t = 0; t < T; t += step) {
		const mask = maskRow(t);
		if (!mask) return;
		for (let s = 0, begin = 0; s <= S; s++) {
			if (s < S && !mask[s]) continue;
			if (s > begin) area.rect(x + begin * w, y + t * h, (s - begin) * w, step * h);
			begin = s + 1;
		}
	}
	pen.save();
	pen.clip(area);
	pen.fillStyle = colour("paper");
	pen.fillRect(x, y, width, height);
	pen.strokeStyle = colour("hatch");
	pen.beginPath();
	for (let at = -height; at < width; at += 6) {
		pen.moveTo(x + at, y + height);
		pen.lineTo(x + at + height, y);
	}
	pen.stroke();
	pen.restore();
}
