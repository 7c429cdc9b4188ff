// The state of the page, and the listeners that are called when it changes.

const store = {
	records: [],
	which: 0, layer: 0, head: 0, row: 0, column: 0, // the shown record, layer and head, and the cursor’s query and key
	rows: new Set(), columns: new Set(), // selected queries and keys
	merged: false, root: false, // whether subwords are merged; whether colours show square roots
	listeners: [],
};

function change(patch) {
	Object.assign(store, patch);
	const { layers, heads, T, S } = current();
	for (const [name, count] of Object.entries({ layer: layers, head: heads, row: T, column: S })) store[name] = clamp(store[name], 0, count - 1);
	for (const listener of store.listeners) listener(patch);
}

function current(which = store.which) {
	const base = store.records[which];
	if (!store.merged || !base.canMerge) return base;
	return (base.merged ??= new MergedRecord(base));
}

function moveCursor(row, column) {
	change({ row, column });
}

function toggle(name, i) {
	const chosen = new Set(store[name]);
	if (!chosen.delete(i)) chosen.add(i);
	change({ [name]: chosen });
}

// The index of the shown head, counted through all layers.
function headIndex({ layers, heads }) {
	return Math.min(store.layer, layers - 1) * heads + Math.min(store.head, heads - 1);
}

function headName({ heads }, h) {
	return `layer ${Math.floor(h / heads) + 1}, head ${(h % heads) + 1}`;
}

// The statistics of a head as text.
function statistics({ entropy, distance }, h) {
	return `mean entropy ${fourDigits(entropy.flat()[h])} bits${distance ? `, mean distance ${fourDigits(distance.flat()[h])} tokens` : ""}`;
}
