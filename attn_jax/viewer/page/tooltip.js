// The tooltip with the numbers of one cell, and its text for screen readers.

const [tooltip, announcer] = app.querySelectorAll(".tooltip, .announcer");
let announceTimer = 0;

function announce(text) {
	clearTimeout(announceTimer);
	announceTimer = setTimeout(() => fill(announcer, text), 120);
}

function spokenText({ title, lines }) {
	const names = spoken(title.map((part) => part.textContent ?? part).join(""));
	return `${names}: ${lines.map((line) => line.join(" ")).join(", ")}`;
}

// Shows { title: [parts], lines: [[name, value]], note } beside a rectangle of the window.
function showTooltip({ title, lines, note }, near) {
	fill(tooltip, el("b", {}, title), facts(lines), note && el("div", {}, note));
	tooltip.hidden = false;
	const { width, height } = tooltip.getBoundingClientRect();
	const left = near.right + 14 + width < innerWidth ? near.right + 14 : near.left - width - 14;
	setBox(tooltip, Math.max(6, left), clamp(near.top - 10, 6, innerHeight - height - 6));
}

function hideTooltip() {
	tooltip.hidden = true;
}

// The numbers of a query and key, in the order in which they are computed.
function pairFacts(record, h, t, s) {
	const { logit, added, mask, weight, kept, sum: total } = record.row(h, t);
	const isKept = !kept || kept.includes(s) || (mask && !mask[s]);
	const unknown = record.decode?.only_last ? "none" : "not stored"; // a model without attention has no logits
	const lines = {
		logit: logit ? fourDigits(logit[s]) : unknown,
		[record.form === "qk" ? "score mod adds" : "bias"]: added ? fourDigits(added[s]) : logit ? "0" : unknown,
		mask: !mask || mask[s] ? "unmasked" : "masked",
		[record.normalised ? "weight" : "value"]: isKept ? fourDigits(weight[s]) : `at most ${fourDigits(Math.min(...kept.map((k) => weight[k])))}`,
		"row sum": fourDigits(total),
	};
	return { title: ["query “", tokenNode(record.queries[t], 24), "”, key “", tokenNode(record.keys[s], 24), "”"], lines: Object.entries(lines) };
}
