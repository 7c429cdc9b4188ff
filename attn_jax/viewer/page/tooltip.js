// The numbers of one cell: beside the pointer or the focus, and said aloud.

const [tooltip, aloud] = app.querySelectorAll(".tooltip, .aloud");
let saying = 0;

function say(text) {
	clearTimeout(saying);
	saying = setTimeout(() => fill(aloud, text), 120);
}

function spoken({ title, lines }) {
	const names = title.map((part) => part.textContent ?? part).join("");
	return `${names}: ${lines.map((line) => line.join(" ")).join(", ")}`;
}

// { title: [parts], lines: [[name, value]], note } beside a rectangle of the window.
function tell({ title, lines, note }, near) {
	fill(tooltip, el("b", {}, title), facts(lines), note && el("div", {}, note));
	tooltip.hidden = false;
	const { width, height } = tooltip.getBoundingClientRect();
	const left = near.right + 14 + width < innerWidth ? near.right + 14 : near.left - width - 14;
	box(tooltip, Math.max(6, left), clamp(near.top - 10, 6, innerHeight - height - 6));
}

function hush() {
	tooltip.hidden = true;
}

// What is known of a pair, in the order in which it is computed.
function pairFacts(reading, h, t, s) {
	const { logit, effect, mask, weight, kept, sum: total } = reading.row(h, t);
	const isKept = !kept || kept.includes(s) || (mask && !mask[s]);
	const lines = {
		logit: logit ? four(logit[s]) : "not kept",
		bias: effect ? four(effect[s]) : logit ? "0" : "not kept",
		mask: !mask || mask[s] ? "may read" : "may not read",
		[reading.normalised ? "weight" : "value"]: isKept ? four(weight[s]) : `at most ${four(Math.min(...kept.map((k) => weight[k])))}`,
		"row’s sum": four(total),
	};
	return { title: [quoted(reading.queries[t], 24), " reads ", quoted(reading.keys[s], 24)], lines: Object.entries(lines) };
}
