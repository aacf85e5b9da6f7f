// The line to the server: what is told by it, and whether the page is up to date.

const silence = 15_000; // three ticks of the server

const sign = document.getElementById('live');
const troubles = new Map(); // words, by the part of the page that is not up to date
let hidden = true;

const tell = () => {
	const [, words] = [...troubles].find(([part]) => part !== 'line') ?? ['line', troubles.get('line')];
	const state = words ? 'lost' : hidden ? 'off' : 'on';
	sign.dataset.state = state;
	const said = words ?? (hidden ? 'not live' : 'live');
	if (sign.textContent !== said) sign.textContent = said;
};

// trouble notes in words why a part is not up to date; without words it is again.
export const trouble = (part, words) => {
	if (words) troubles.set(part, words);
	else troubles.delete(part);
	tell();
};

// listen hands on what the server tells, and calls again() whenever the line is there
// anew, as things may have been missed. A page that nobody sees holds no line:
// browsers have few for each host.
export const listen = (address, handlers, again) => {
	let source;
	let heard = 0;
	let before = document.hidden; // there was a line, or the page was made long before it is seen
	const open = () => {
		source?.close();
		heard = Date.now();
		source = new EventSource(address);
		let first = true;
		const hear = (handle) => (e) => {
			heard = Date.now();
			trouble('line');
			handle?.(JSON.parse(e.data));
		};
		source.onopen = () => {
			heard = Date.now();
			hidden = false;
			trouble('line');
			if (before) again();
			before = true;
		};
		source.onerror = () => {
			const refused = source.readyState === EventSource.CLOSED;
			trouble('line', refused ? 'not live: the server refuses' : 'connecting…');
			if (refused) again(); // what is refused tells why
		};
		for (const [name, handle] of Object.entries(handlers)) {
			if (name !== 'tick') source.addEventListener(name, hear(handle));
		}
		source.addEventListener('tick', hear((now) => {
			handlers.tick(now, first);
			first = false;
		}));
	};
	// A server that hangs ends no line, and a line may end without a word.
	setInterval(() => {
		if (document.hidden || Date.now() - heard < silence) return;
		trouble('line', 'lost: the server is silent');
		open();
	}, 1000);
	document.addEventListener('visibilitychange', () => {
		if (document.hidden) {
			source?.close();
			hidden = true;
			trouble('line');
		} else {
			open();
		}
	});
	if (!document.hidden) open();
};
