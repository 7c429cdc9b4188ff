// The animation of a translation: frames chosen by play, keys, buttons or the slider.

const PACE = 900; // milliseconds of a frame

// `player` keeps mode and frame while other tabs are open.
function animationView(record, player) {
	const trace = traceOf(record);
	const caption = el("p.caption", { "aria-live": "polite" });
	const slider = el("input", { type: "range", min: 0, "aria-label": "Frame", oninput: () => showFrame(Number(slider.value)) });
	const count = el("span.count");
	const play = el("button", { onclick: () => player.toggle() });
	const container = el("div.diagram", { tabindex: 0, role: "group", "aria-label": "Diagram" });
	const modes = Object.keys(MODES).map((mode) => el("button", { onclick: () => setMode(mode) }, MODES[mode]));
	const button = (name, mark, by) => el("button", { "aria-label": name, onclick: () => player.step(by) }, mark);
	let [frames, diagram] = [[], null];

	function setMode(mode) {
		const before = frames[player.frame] ?? {};
		player.mode = mode;
		frames = framesOf(trace, mode);
		diagram = mode === "box" ? blackBoxDiagram(trace) : unrolledDiagram(trace, mode);
		fill(container, diagram.node);
		slider.max = frames.length - 1;
		modes.forEach((one, i) => one.setAttribute("aria-pressed", Object.keys(MODES)[i] === mode));
		const same = frames.findLastIndex(({ t, j }) => t === before.t && j === before.j);
		showFrame(same < 0 ? player.frame ?? 0 : same);
	}

	function showFrame(frame) {
		player.frame = clamp(frame, 0, frames.length - 1);
		slider.value = player.frame;
		fill(count, `${player.frame + 1} / ${frames.length}`);
		fill(caption, captionOf(trace, player.mode, frames[player.frame]));
		diagram.show(frames[player.frame]);
		if (player.frame === frames.length - 1) player.stop();
	}

	function setTimer(timer) {
		clearInterval(player.timer);
		player.timer = timer;
		play.setAttribute("aria-label", timer ? "Pause" : "Play");
		fill(play, timer ? "‖" : "▶");
	}

	player.stop = () => setTimer(null);
	player.step = (by) => { player.stop(); showFrame(player.frame + by); };
	player.toggle = () => {
		if (player.timer) return player.stop();
		if (player.frame === frames.length - 1) showFrame(0);
		setTimer(setInterval(() => showFrame(player.frame + 1), PACE));
	};
	const controls = el("div.controls", {}, button("First frame", "⇤", -Infinity), button("Previous frame", "←", -1), play, button("Next frame", "→", 1), button("Last frame", "⇥", Infinity), slider, count);
	const node = el("div", {}, el("div.modes", { role: "group", "aria-label": "Mode" }, modes), caption, container, controls);
	return { node, draw: () => { player.stop(); setMode(player.mode ?? "attention"); }, update() {} };
}

function captionOf({ record, onlyLast, row }, mode, { kind, j, t }) {
	const remark = onlyLast ? "" : " (The output shown is that of a model with attention, which this diagram leaves out.)";
	switch (kind) {
		case "encode": return [`The encoder processes token ${j + 1} of ${record.S}, “`, tokenNode(record.keys[j]), "”, and updates its state."];
		case "pass": return mode === "attention"
			? [`All ${record.S} encoder states are kept: at every step the decoder can attend to each of them.`]
			: [`Only the last encoder state is passed on: it must represent all ${plural(record.S, "token")}.`, remark];
		case "score": return [`Step ${t + 1}: the decoder’s state and each encoder state give a score.`];
		case "softmax": return [`Step ${t + 1}: softmax turns the scores into weights, which sum to ${fourDigits(row(t).sum)}.`];
		case "sum": return [`Step ${t + 1}: each encoder state is multiplied by its weight; the sum is the context.`];
		default: return [`Step ${t + 1}: the decoder outputs “`, tokenNode(record.queries[t]), "”.", mode === "attention" ? "" : remark];
	}
}
