// Vectors and tokens that travel from one place of a diagram to another.

const stillness = matchMedia("(prefers-reduced-motion: reduce)");

// Each flight is { node, from, to }: the node moves over `layer` from the place of `from` to that of
// `to`, which is hidden until then unless `arrives` is false. With reduced motion nothing moves.
function travel(layer, flights, duration) {
	for (const animation of layer.parentNode.getAnimations({ subtree: true })) animation.cancel();
	fill(layer);
	if (stillness.matches) return;
	const base = layer.getBoundingClientRect();
	const placeOf = (node) => {
		const { left, top, width, height } = node.getBoundingClientRect();
		return { transform: `translate(${left + width / 2 - base.left}px, ${top + height / 2 - base.top}px) translate(-50%, -50%)` };
	};
	for (const { node, from, to, arrives = true } of flights) {
		layer.append(node);
		node.animate([placeOf(from), placeOf(to)], { duration, easing: "ease-in-out" }).onfinish = () => node.remove();
		if (arrives) to.animate([{ opacity: 0 }, { opacity: 0, offset: 0.95 }, { opacity: 1 }], duration);
	}
}
