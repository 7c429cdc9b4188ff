// The animation: one frame after another, by play, keys, buttons or the slider.

const PACE = 900; // milliseconds a frame

// `film` outlives the view: mode and frame stay while other tabs are open.
function animationView(reading, film) {
	const script = scriptOf(reading);
	const caption = el("p.caption", { "aria-live": "polite" });
	const slider = el("input", { type: "range", min: 0, "aria-label": "Frame", oninput: () => go(Number(slider.value)) });
	const count = el("span.count");
	const play = el("button", { onclick: () => film.toggle() });
	const room = el("div.stage", { tabindex: 0, role: "group", "aria-label": "Stage" });
	const modes = Object.keys(MODES).map((mode) => el("button", { onclick: () => choose(mode) }, MODES[mode]));
	const button = (name, mark, by) => el("button", { "aria-label": name, onclick: () => film.step(by) }, mark);
	let [frames, stage] = [[], null];

	function choose(mode) {
		const before = frames[film.frame] ?? {};
		film.mode = mode;
		frames = framesOf(script, mode);
		stage = mode === "box" ? boxStage(script) : unrolledStage(script, mode);
		fill(room, stage.node);
		slider.max = frames.length - 1;
		modes.forEach((one, i) => one.setAttribute("aria-pressed", Object.keys(MODES)[i] === mode));
		const same = frames.findLastIndex(({ t, j }) => t === before.t && j === before.j);
		go(same < 0 ? film.frame ?? 0 : same);
	}

	function go(frame) {
		film.frame = clamp(frame, 0, frames.length - 1);
		slider.value = film.frame;
		fill(count, `${film.frame + 1} / ${frames.length}`);
		fill(caption, captionOf(script, film.mode, frames[film.frame]));
		stage.show(frames[film.frame]);
		if (film.frame === frames.length - 1) film.stop();
	}

	function running(timer) {
		clearInterval(film.timer);
		film.timer = timer;
		play.setAttribute("aria-label", timer ? "Pause" : "Play");
		fill(play, timer ? "‖" : "▶");
	}

	film.stop = () => running(null);
	film.step = (by) => { film.stop(); go(film.frame + by); };
	film.toggle = () => {
		if (film.timer) return film.stop();
		if (film.frame === frames.length - 1) go(0);
		running(setInterval(() => go(film.frame + 1), PACE));
	};
	const controls = el("div.controls", {}, button("First frame", "⇤", -Infinity), button("Step back", "←", -1), play, button("Step on", "→", 1), button("Last frame", "⇥", Infinity), slider, count);
	const node = el("div", {}, el("div.modes", { role: "group", "aria-label": "Mode" }, modes), caption, room, controls);
	return { node, draw: () => { film.stop(); choose(film.mode ?? "attention"); }, moved() {} };
}

function captionOf({ reading, onlyLast, read }, mode, { kind, j, t }) {
	const doubt = onlyLast ? "" : " (The words are of a model that did look back; the drawing leaves that out.)";
	switch (kind) {
		case "read": return ["The encoder reads ", quoted(reading.keys[j]), ` (${j + 1} of ${reading.S}) and updates its state.`];
		case "cross": return mode === "attention"
			? [`All ${reading.S} states are kept: the decoder may look at each at every step.`]
			: [`Only the last state crosses: all that the decoder would know of ${plural(reading.S, "word")}.`, doubt];
		case "ask": return [`Step ${t + 1}: the decoder’s state is held against every state of the encoder: a score each.`];
		case "weigh": return [`Step ${t + 1}: softmax turns scores into weights; they sum to ${four(read(t).sum)}.`];
		case "sum": return [`Step ${t + 1}: each state is weighted, and their sum is the context.`];
		default: return [`Step ${t + 1}: the decoder says `, quoted(reading.queries[t]), ".", mode === "attention" ? "" : doubt];
	}
}
