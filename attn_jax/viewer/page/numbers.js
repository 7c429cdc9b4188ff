// Numbers: decoding from base64, softmax, entropy, and rounded text.

const TYPES = { f32: Float32Array, u8: Uint8Array, u32: Uint32Array, f16: globalThis.Float16Array };

function arrayFromJson(packed) {
	const text = atob(packed.data);
	const bytes = Uint8Array.from(text, (c) => c.charCodeAt(0));
	const values = new TYPES[packed.type](bytes.buffer);
	return { shape: packed.shape, values: packed.type === "f16" ? Float32Array.from(values) : values };
}

// The softmax over unmasked keys; zeros for a fully masked query, as in the library.
function softmax(logits, mask) {
	const may = (s) => !mask || mask[s];
	const most = logits.reduce((a, x, s) => (may(s) && !(x <= a) ? x : a), -Infinity);
	const weights = logits.map((x, s) => (may(s) && most > -Infinity ? Math.exp(x - most) : most !== most && may(s) ? NaN : 0));
	const total = sum(weights);
	return weights.map((weight) => weight / (total === 0 ? 1 : total));
}

function sum(values) {
	return values.reduce((a, b) => a + b, 0);
}

function bits(weights) {
	return sum(weights.map((w) => (w > 0 ? -w * Math.log2(w) : 0)));
}

// Four digits; only a 1, up to float32 error (1e-6), is written as 1.
function fourDigits(x) {
	if (!Number.isFinite(x)) return Number.isNaN(x) ? "NaN" : x > 0 ? "∞" : "−∞";
	const size = Math.abs(x);
	if (size < 1 - 1e-6 && Number(size.toPrecision(4)) === 1) return x > 0 ? ">0.9999" : "<−0.9999";
	const text = x === 0 ? "0" : size >= 1e-3 && size < 1e4 ? x.toPrecision(4) : x.toExponential(3);
	return text.replace(/^-/, "−");
}

// Two digits for a cell; only a 0 or 1 is written as 0 or 1.
function twoDigits(x) {
	const size = Math.abs(x);
	if (!Number.isFinite(x)) return fourDigits(x);
	if (size > 0 && size < 0.005) return x > 0 ? "<.01" : ">−.01";
	if (size < 1 && size >= 0.995) return x > 0 ? ">.99" : "<−.99";
	const text = size === 0 || size === 1 || size >= 10 ? size.toFixed(0) : size.toFixed(2).replace(/^0/, "");
	return x < 0 ? `−${text}` : text;
}

function greatestOf(values) {
	return values.reduce((a, b) => (b > a ? b : a), 0);
}

function range(count) {
	return Array.from({ length: count }, (_, i) => i);
}

function clamp(x, low, high) {
	return Math.max(low, Math.min(high, x));
}
