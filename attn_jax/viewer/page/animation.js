// The animation of a translation: frames chosen by play, keys, buttons or the slider.

const PACE = 1200; // milliseconds of a frame at speed 1
const SPEEDS = [0.5, 1, 2, 4];

// `player` keeps mode, frame and speed while other tabs are open.
function animationView(record, player) {
	const trace = traceOf(record);
	player.speed ??= 1;
	const caption = el("p.caption", { "aria-live": "polite" });
	const slider = el("input", { type: "range", min: 0, "aria-label": "Frame", oninput: () => { player.stop(); showFrame(Number(slider.value)); } });
	const count = el("span.count");
	const play = el("button.play", { id: "play", onclick: () => player.toggle() });
	const layer = el("div.flights", { "aria-hidden": "true" });
	const container = el("div.diagram", { role: "group", "aria-label": "Diagram" });
	const modes = modesOf(trace).map((mode) => el("button", { id: `mode-${mode}`, onclick: () => setMode(mode) }, MODES[mode]));
	const button = (name, mark, by) => el("button", { "aria-label": name, onclick: () => player.step(by) }, mark);
	const speed = el("select", { id: "speed", onchange: () => { player.speed = SPEEDS[speed.selectedIndex]; if (player.timer) player.start(); } },
		SPEEDS.map((one) => el("option", { selected: one === player.speed }, `${one}×`)));
	let [mode, frames, diagram] = [null, [], null];

	function setMode(wanted) {
		const before = frames[player.frame] ?? {};
		player.mode = wanted;
		mode = modesOf(trace).includes(wanted) ? wanted : "last";
		frames = framesOf(trace, mode);
		diagram = mode === "box" ? blackBoxDiagram(trace) : unrolledDiagram(trace, mode);
		fill(container, diagram.node, layer);
		slider.max = frames.length - 1;
		for (const one of modes) one.setAttribute("aria-pressed", one.id === `mode-${mode}`);
		const same = frames.findLastIndex(({ t, j }) => t === before.t && j === before.j);
		showFrame(same < 0 ? player.frame ?? 0 : same);
	}

	// Vectors travel only from one frame to the next; any other change of the frame is a cut.
	function showFrame(wanted) {
		const frame = clamp(wanted, 0, frames.length - 1);
		const isNext = frame === player.frame + 1;
		player.frame = frame;
		slider.value = frame;
		fill(count, `${frame + 1} / ${frames.length}`);
		fill(caption, captionOf(trace, mode, frames[frame]));
		diagram.show(frames[frame]);
		travel(layer, isNext ? diagram.flights(frames[frame]) : [], (0.7 * PACE) / player.speed);
		if (frame === frames.length - 1) player.stop();
	}

	function setTimer(timer) {
		clearInterval(player.timer);
		player.timer = timer;
		caption.setAttribute("aria-live", timer ? "off" : "polite");
		fill(play, el("span", { "aria-hidden": "true" }, timer ? "‖ " : "▶ "), timer ? "Pause" : "Play");
	}

	player.stop = () => setTimer(null);
	player.start = () => setTimer(setInterval(() => showFrame(player.frame + 1), PACE / player.speed));
	player.step = (by) => { player.stop(); showFrame(player.frame + by); };
	player.toggle = () => {
		if (player.timer) return player.stop();
		if (player.frame === frames.length - 1) showFrame(0);
		player.start();
	};
	const controls = el("div.controls", {}, play, button("First frame", "⇤", -Infinity), button("Previous frame", "←", -1), button("Next frame", "→", 1), button("Last frame", "⇥", Infinity),
		el("label", {}, "Speed ", speed), slider, count);
	const node = el("div", {}, el("div.modes", { role: "group", "aria-label": "Mode" }, modes), controls, caption, container);
	return { node, draw: () => { player.stop(); setMode(player.mode ?? "attention"); }, update() {} };
}

function captionOf({ record, onlyLast, row }, mode, { kind, j, t }) {
	const quoted = (token) => ["“", tokenNode(token), "”"];
	const step = `Step ${t + 1} of ${record.T}`;
	const strongest = (values) => {
		const best = greatestKeys(values, 1)[0];
		return best === undefined ? "" : [" The greatest weight is on ", quoted(record.keys[best]), ` (${fourDigits(values[best])}).`];
	};
	switch (kind) {
		case "encode": return ["The encoder reads ", quoted(record.keys[j]), ` (token ${j + 1} of ${record.S}) and computes a state for it.`];
		case "pass": return passCaption(record, onlyLast, mode, quoted);
		case "score": return [`${step}${t ? ", after " : ""}`, t ? quoted(record.queries[t - 1]) : "", ": the decoder’s state and each encoder state give a score."];
		case "softmax": return [`${step}: softmax turns the scores into weights, which sum to ${fourDigits(row(t).sum)}.`, strongest(row(t).weight)];
		case "sum": return [`${step}: each encoder state is multiplied by its weight; the sum is the context.`];
		default: return ["The decoder says ", quoted(record.queries[t]), ` (step ${t + 1} of ${record.T}).`,
			mode === "last" && !onlyLast ? " This model has attention, which the diagram leaves out." : ""];
	}
}

function passCaption({ keys, S }, onlyLast, mode, quoted) {
	if (mode === "attention") return `All ${S} encoder states are kept: at every step the decoder can attend to each of them.`;
	if (mode === "box" && !onlyLast) return `The ${S} encoder states are passed on: at every step the decoder computes a context from them.`;
	return ["Only the last encoder state, after ", quoted(keys.at(-1)), `, is passed on: it must represent all ${plural(S, "token")}.`,
		onlyLast ? "" : " This model has attention; the diagram shows what a decoder without attention would receive."];
}
