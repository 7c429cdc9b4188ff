// Every row's logits, what was added, mask and weights, however the page holds them.

// What was computed is kept, the newest of it.
function remembered(memory, name, make) {
	if (memory.size > 400) memory.clear();
	if (!memory.has(name)) memory.set(name, make());
	return memory.get(name);
}

class Reading {
	constructor(json) {
		Object.assign(this, json);
		[this.layers, this.heads] = json.sizes;
		this.T = json.queries.length;
		this.S = json.keys.length;
		this.seen = new Map();
		this.pictures = new Map();
		const { content } = json;
		Object.assign(this, { form: content.form, normalised: content.normalised });
		for (const name of ["weights", "logits", "bias", "ids", "rest", "query", "key", "overview"]) {
			this[name] = content[name] ? unpack(content[name]) : null;
		}
		this.effects = (content.effect || []).map((e) => e && { ...e, values: e.values && unpack(e.values) });
		this.masks = content.masks?.list.map((m) => [unpack(m.offsets).values, unpack(m.edges).values]);
		this.measures = json.measures.map((m) => ({ ...m, values: unpack(m.values).values }));
		this.canMerge = Boolean(json.query_words || json.key_words);
	}

	// 1 where the query may read, or null where all may.
	mask(h, t) {
		if (!this.masks) return null;
		const [offsets, edges] = this.masks[this.content.masks.of[h]];
		const row = new Uint8Array(this.S);
		for (let run = offsets[t]; run < offsets[t + 1]; run++) row.fill(1, edges[2 * run], edges[2 * run + 1]);
		return row;
	}

	// { logit, effect, mask, weight, sum, rest }: arrays over the keys, or nothing.
	row(h, t) {
		return remembered(this.seen, h * this.T + t, () => {
			const row = { mask: this.mask(h, t), rest: 0, ...this[`${this.form}Row`](h, t) };
			return { ...row, sum: sum(row.weight) + row.rest };
		});
	}

	denseRow(h, t) {
		const begin = (h * this.T + t) * this.S;
		const part = (packed) => packed && packed.values.subarray(begin, begin + this.S);
		return { logit: part(this.logits), effect: part(this.bias), weight: part(this.weights) };
	}

	// Of keys that were not kept, nothing is known but the sum of their weights.
	topRow(h, t) {
		const place = h * this.T + t;
		const count = this.ids.shape[3];
		const part = ({ values }) => values.subarray(place * count, (place + 1) * count);
		const [kept, weight, rest] = [[...part(this.ids)], new Float64Array(this.S), this.rest.values[place]];
		part(this.weights).forEach((w, i) => (weight[kept[i]] = w));
		return { weight, rest, kept };
	}

	qkRow(h, t) {
		const [, , , H] = this.query.shape;
		const ask = (h * this.T + t) * H;
		const answer = Math.floor((h * this.key.shape[1]) / this.heads) * this.S * H; // of the head, which others may share
		const [query, key] = [this.query.values, this.key.values];
		const logit = new Float64Array(this.S).map((_, s) => {
			let dot = 0;
			for (let i = 0, k = answer + s * H; i < H; i++) dot += query[ask + i] * key[k + i];
			return this.content.scale[h] * dot;
		});
		const effect = this.effect(h, t, logit);
		return { logit, effect, weight: softmax(effect ? logit.map((x, s) => x + effect[s]) : logit, this.mask(h, t)) };
	}

	effect(h, t, logit) {
		const effect = this.effects[Math.floor(h / this.heads)];
		if (!effect) return null;
		if (effect.kind === "cap") return logit.map((x) => effect.cap * Math.tanh(x / effect.cap) - x);
		const { values, shape } = effect.values;
		const own = (h % this.heads) % shape[0];
		const begin = effect.kind === "distance" ? own * shape[1] + this.T - 1 - t : (own * this.T + t) * this.S;
		return values.subarray(begin, begin + this.S);
	}

	// Each point the greatest weight of its block, so that no spike is lost.
	picture(h, side = 512) {
		return remembered(this.pictures, `${h} ${side}`, () => {
			const { T, S, overview } = this;
			if (!overview || (side >= 512 && Math.max(T, S) <= 512)) return pool(T, S, side, (t) => this.row(h, t).weight);
			const [, , height, width] = overview.shape;
			const row = (y) => overview.values.subarray((h * height + y) * width, (h * height + y + 1) * width);
			return pool(height, width, side, (y) => Float32Array.from(row(y), (c) => (c === 255 ? NaN : (c / 254) ** 2)));
		});
	}

	// The key with most weight, from..to.
	strongest(h, t, from, to) {
		const { weight } = this.row(h, t);
		return range(to - from).reduce((best, i) => (weight[from + i] <= weight[best] ? best : from + i), from);
	}
}

// The greatest value of each block of rows and columns; NaN where there is one.
function pool(rows, columns, side, row) {
	const [height, width] = [Math.min(rows, side), Math.min(columns, side)];
	const values = new Float32Array(height * width).fill(-Infinity);
	for (let y = 0; y < rows; y++) {
		const begin = Math.floor((y * height) / rows) * width;
		row(y).forEach((value, x) => {
			const place = begin + Math.floor((x * width) / columns);
			if (!(value <= values[place])) values[place] = value;
		});
	}
	return { height, width, values };
}

// Word pieces merged: a word is read when any of its pieces is (sum), and a word's pieces read on
// average (mean). Logits are of pieces, so words have none.
class MergedReading extends Reading {
	constructor(base) {
		const words = (numbers, texts) => (!numbers ? texts
			: range(numbers.at(-1) + 1).map((word) => texts.filter((_, i) => numbers[i] === word).map((text) => text.replace(/^##|^[▁Ġ ]/, "")).join("")));
		super({ ...base, content: { form: "merged", normalised: base.normalised, masks: null }, measures: [],
			queries: words(base.query_words, base.queries), keys: words(base.key_words, base.keys) });
		this.base = base;
		this.canMerge = true;
	}

	mergedRow(h, t) {
		const { query_words: rows, key_words: columns } = this.base;
		const pieces = rows ? range(this.base.T).filter((i) => rows[i] === t) : [t];
		const [weight, mask] = [new Float64Array(this.S), new Uint8Array(this.S)];
		let rest = 0;
		for (const piece of pieces) {
			const row = this.base.row(h, piece);
			rest += row.rest / pieces.length;
			row.weight.forEach((w, s) => {
				const word = columns ? columns[s] : s;
				weight[word] += w / pieces.length;
				if (!row.mask || row.mask[s]) mask[word] = 1;
			});
		}
		return { mask: mask.includes(0) ? mask : null, weight, rest };
	}
}
