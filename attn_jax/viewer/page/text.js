// The page replaces the table that is shown without scripts.
const app = document.getElementById("app");
app.replaceChildren(document.querySelector("template").content);

// Text and elements. Tokens only become text nodes, never markup. Characters that are invisible or
// change the direction of text are shown as their code points.

const HIDDEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\u115f\u3164]/gu;
const NUMBER = /(?!^)[₀-₉]{1,6}$/; // not a whole token

function shown(token) {
	if (token === "") return "∅";
	if (/^ +$/.test(token)) return "␣".repeat(Math.min(token.length, 8));
	return token.replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(HIDDEN, (c) => `⟨${c.codePointAt(0).toString(16).toUpperCase()}⟩`);
}

// The first characters of a token, with the number that `distinct` gave it.
function short(token, most = 18) {
	const base = token.replace(NUMBER, "");
	const number = token.slice(base.length);
	const text = Array.from(shown(base.slice(0, 200)));
	const room = most - number.length;
	return (text.length <= room ? text.join("") : text.slice(0, room - 1).join("") + "…") + number;
}

// Tokens that occur more than once are numbered in their order: the₁, cat, the₂.
function distinct(tokens) {
	const counts = new Map();
	const numbers = tokens.map((token) => counts.set(token, (counts.get(token) ?? 0) + 1).get(token));
	return tokens.map((token, i) => (counts.get(token) > 1 ? shown(token) + String(numbers[i]).replace(/\d/g, (digit) => "₀₁₂₃₄₅₆₇₈₉"[digit]) : token));
}

// Text for screen readers, in which the₂ is “the (2)”.
function spoken(text) {
	return text.replace(/(?<![₀-₉“]|^)[₀-₉]+(?![₀-₉\p{L}])/gu, (number) => ` (${Array.from(number, (digit) => digit.codePointAt(0) - 0x2080).join("")})`);
}

// el("p.note", { title: "…", onclick: f }, "text", child)
function el(what, attributes = {}, ...children) {
	const [tag, ...classes] = what.split(".");
	const node = document.createElement(tag);
	if (classes.length) node.className = classes.join(" ");
	for (const [name, value] of Object.entries(attributes)) {
		if ((value ?? false) === false) continue;
		if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
		else if (name === "style") for (const [property, own] of Object.entries(value)) node.style.setProperty(property, own);
		else node.setAttribute(name, value === true ? "" : value);
	}
	return fill(node, ...children);
}

function fill(node, ...children) {
	node.replaceChildren(...children.flat(3).filter((child) => child || child === 0));
	return node;
}

// [name, value] pairs as a definition list.
function facts(pairs) {
	return el("dl", {}, pairs.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

// A token as an element, which isolates the direction of its text.
function tokenNode(token, most = 40) {
	return el("bdi", { title: token.length > most ? shown(token.slice(0, 2000)) : null }, short(token, most));
}

function plural(count, word) {
	return `${count} ${word}${count === 1 ? "" : "s"}`;
}
