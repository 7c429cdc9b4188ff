// AttentionRecord: logits, score mod or bias, mask and weights of each row, from any form of the data.

// The cached value of a name, or the new one that `make` returns.
function cached(cache, name, make) {
	if (cache.size > 400) cache.clear();
	if (!cache.has(name)) cache.set(name, make());
	return cache.get(name);
}

class AttentionRecord {
	constructor(json) {
		Object.assign(this, json, { texts: { queries: json.queries, keys: json.keys }, queries: distinct(json.queries), keys: distinct(json.keys) });
		[this.layers, this.heads] = json.sizes;
		this.T = json.queries.length;
		this.S = json.keys.length;
		this.rows = new Map();
		this.pictures = new Map();
		const { content } = json;
		Object.assign(this, { form: content.form, normalised: content.normalised });
		for (const name of ["weights", "logits", "bias", "ids", "rest", "query", "key", "overview"]) {
			this[name] = content[name] ? arrayFromJson(content[name]) : null;
		}
		this.scoreMods = (content.score_mods || []).map((e) => e && { ...e, values: e.values && arrayFromJson(e.values) });
		this.masks = content.masks?.list.map((m) => [arrayFromJson(m.offsets).values, arrayFromJson(m.edges).values]);
		this.measures = json.measures.map((m) => ({ ...m, values: arrayFromJson(m.values).values }));
		this.canMerge = Boolean(json.query_words || json.key_words);
	}

	// 1 where the query may attend to a key; null if nothing is masked.
	mask(h, t) {
		if (!this.masks) return null;
		const [offsets, edges] = this.masks[this.content.masks.of[h]];
		const row = new Uint8Array(this.S);
		for (let run = offsets[t]; run < offsets[t + 1]; run++) row.fill(1, edges[2 * run], edges[2 * run + 1]);
		return row;
	}

	// { logit, added, mask, weight, sum, rest }: arrays over keys or null, the row sum, and the sum of
	// weights that are not stored.
	row(h, t) {
		return cached(this.rows, h * this.T + t, () => {
			const row = { mask: this.mask(h, t), rest: 0, ...this[`${this.form}Row`](h, t) };
			return { ...row, sum: sum(row.weight) + row.rest };
		});
	}

	denseRow(h, t) {
		const begin = (h * this.T + t) * this.S;
		const part = (packed) => packed && packed.values.subarray(begin, begin + this.S);
		return { logit: part(this.logits), added: part(this.bias), weight: part(this.weights) };
	}

	// Only the greatest weights of a row are stored, and the sum of the others.
	topRow(h, t) {
		const index = h * this.T + t;
		const count = this.ids.shape[3];
		const part = ({ values }) => values.subarray(index * count, (index + 1) * count);
		const [kept, weight, rest] = [[...part(this.ids)], new Float64Array(this.S), this.rest.values[index]];
		part(this.weights).forEach((w, i) => (weight[kept[i]] = w));
		return { weight, rest, kept };
	}

	qkRow(h, t) {
		const [, , , H] = this.query.shape;
		const queryStart = (h * this.T + t) * H;
		const keyStart = Math.floor((h * this.key.shape[1]) / this.heads) * this.S * H; // query heads may share a key head
		const [query, key] = [this.query.values, this.key.values];
		const logit = new Float64Array(this.S).map((_, s) => {
			let dot = 0;
			for (let i = 0, k = keyStart + s * H; i < H; i++) dot += query[queryStart + i] * key[k + i];
			return this.content.scale[h] * dot;
		});
		const added = this.added(h, t, logit);
		return { logit, added, weight: softmax(added ? logit.map((x, s) => x + added[s]) : logit, this.mask(h, t)) };
	}

	// What the score mod adds to the logits of a query, or null for no score mod.
	added(h, t, logit) {
		const scoreMod = this.scoreMods[Math.floor(h / this.heads)];
		if (!scoreMod) return null;
		if (scoreMod.kind === "cap") return logit.map((x) => scoreMod.cap * Math.tanh(x / scoreMod.cap) - x);
		const { values, shape } = scoreMod.values;
		const modHead = (h % this.heads) % shape[0];
		const begin = scoreMod.kind === "distance" ? modHead * shape[1] + this.T - 1 - t : (modHead * this.T + t) * this.S;
		return values.subarray(begin, begin + this.S);
	}

	// A picture of the head: each point is the greatest weight of its block.
	picture(h, side = 512) {
		return cached(this.pictures, `${h} ${side}`, () => {
			const { T, S, overview } = this;
			if (!overview || (side >= 512 && Math.max(T, S) <= 512)) return pool(T, S, side, (t) => this.row(h, t).weight);
			const [, , height, width] = overview.shape;
			const row = (y) => overview.values.subarray((h * height + y) * width, (h * height + y + 1) * width);
			return pool(height, width, side, (y) => Float32Array.from(row(y), (c) => (c === 255 ? NaN : (c / 254) ** 2)));
		});
	}

	// The key with the greatest weight in from..to.
	strongest(h, t, from, to) {
		const { weight } = this.row(h, t);
		return range(to - from).reduce((best, i) => (weight[from + i] <= weight[best] ? best : from + i), from);
	}
}

// The greatest value of each block of rows and columns, or NaN if the block has one.
function pool(rows, columns, side, row) {
	const [height, width] = [Math.min(rows, side), Math.min(columns, side)];
	const values = new Float32Array(height * width).fill(-Infinity);
	for (let y = 0; y < rows; y++) {
		const begin = Math.floor((y * height) / rows) * width;
		row(y).forEach((value, x) => {
			const index = begin + Math.floor((x * width) / columns);
			if (!(value <= values[index])) values[index] = value;
		});
	}
	return { height, width, values };
}

// A record with subwords merged into words: weights are summed over the subwords of a key and
// averaged over those of a query. Words have no logits.
class MergedRecord extends AttentionRecord {
	constructor(base) {
		const words = (numbers, texts) => (!numbers ? texts
			: range(numbers.at(-1) + 1).map((word) => texts.filter((_, i) => numbers[i] === word).map((text) => text.replace(/^##|^[▁Ġ ]/, "")).join("")));
		super({ ...base, content: { form: "merged", normalised: base.normalised, masks: null }, measures: [],
			queries: words(base.query_words, base.texts.queries), keys: words(base.key_words, base.texts.keys) });
		this.base = base;
		this.canMerge = true;
	}

	mergedRow(h, t) {
		const { query_words: rows, key_words: columns } = this.base;
		const subwords = rows ? range(this.base.T).filter((i) => rows[i] === t) : [t];
		const [weight, mask] = [new Float64Array(this.S), new Uint8Array(this.S)];
		let rest = 0;
		for (const subword of subwords) {
			const row = this.base.row(h, subword);
			rest += row.rest / subwords.length;
			row.weight.forEach((w, s) => {
				const word = columns ? columns[s] : s;
				weight[word] += w / subwords.length;
				if (!row.mask || row.mask[s]) mask[word] = 1;
			});
		}
		return { mask: mask.includes(0) ? mask : null, weight, rest };
	}
}
