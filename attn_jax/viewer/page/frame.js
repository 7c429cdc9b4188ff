// The size of the page: the view is drawn again for a new width, and a notebook gets the new height.

// Calls `redraw` if the width of the node differs from `drawnWidth()`. A frame that a notebook has
// just inserted runs this script before it has a width.
function watchWidth(node, drawnWidth, redraw) {
	new ResizeObserver(() => node.clientWidth !== drawnWidth() && redraw()).observe(node);
}

// Sends the height of the page to the window around the frame, which sets the frame's height (FIT in _page.py).
// That window sends the word attnJaxFit when it listens; from then on the page needs no scroll bar.
function reportHeight() {
	if (parent === window) return;
	const root = document.documentElement;
	const report = () => parent.postMessage({ attnJaxHeight: Math.ceil(root.getBoundingClientRect().height) }, "*");
	new ResizeObserver(report).observe(root);
	onmessage = ({ source, data }) => {
		if (source !== parent || data !== "attnJaxFit") return;
		root.classList.add("fitted");
		report();
	};
}
