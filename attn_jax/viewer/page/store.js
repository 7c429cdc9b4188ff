// What is being looked at, and who must know when that changes.

const store = {
	readings: [],
	which: 0, layer: 0, head: 0, row: 0, column: 0, // reading, head, and the pair under the cursor
	rows: new Set(), columns: new Set(), // selected queries and keys
	merged: false, root: false, // whole words; colour by the square root of a weight
	listeners: [],
};

function change(patch) {
	Object.assign(store, patch);
	const { layers, heads, T, S } = current();
	for (const [name, count] of Object.entries({ layer: layers, head: heads, row: T, column: S })) store[name] = clamp(store[name], 0, count - 1);
	for (const listener of store.listeners) listener(patch);
}

function current(which = store.which) {
	const base = store.readings[which];
	if (!store.merged || !base.canMerge) return base;
	return (base.merged ??= new MergedReading(base));
}

function moveTo(row, column) {
	change({ row, column });
}

function toggle(name, i) {
	const chosen = new Set(store[name]);
	if (!chosen.delete(i)) chosen.add(i);
	change({ [name]: chosen });
}

// Heads are numbered through all layers.
function chosenHead({ layers, heads }) {
	return Math.min(store.layer, layers - 1) * heads + Math.min(store.head, heads - 1);
}

function headName({ heads }, h) {
	return `layer ${Math.floor(h / heads) + 1}, head ${(h % heads) + 1}`;
}

// What a head comes to, in words.
function figures({ entropy, distance }, h) {
	return `entropy ${four(entropy.flat()[h])} bits${distance ? `, mean distance ${four(distance.flat()[h])} tokens` : ""}`;
}
