// A flag's charts: canary against control, live or of the past.

import { clock, day, moment } from './times.js';

const lengths = { live: 600, '1h': 3600, '48h': 48 * 3600, '14d': 14 * 86400, '90d': 90 * 86400 }; // seconds
const mostSamples = 300; // of the live chart

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const short = (v) => Number(v.toPrecision(3)).toLocaleString('en');
const ms = (v) => (v < 1000 ? short(v) + ' ms' : short(v / 1000) + ' s');
const chance = (log) => (log < 0.4 ? 'none' : '1 in ' + (log < 14 ? Math.round(Math.exp(log)).toLocaleString('en') : '10^' + Math.round(log / Math.LN10)));

// decades are the marks of a scale of logarithms.
const decades = (u) => {
	const all = Math.ceil((u.scales.y.max ?? 10) / Math.LN10);
	const every = Math.max(1, Math.round(all / 4));
	return Array.from({ length: all }, (_, k) => k * Math.LN10).filter((_, k) => k % every === 0);
};

// Lines are label, looks (classes of console.css), and the value of a sample.
const milli = (s) => s && s * 1000;
const kinds = {
	rate: { unit: (v) => short(v) + '/s', least: 1, lines: [['canary', 'canary', (s) => s.canary.rate], ['control', 'control', (s) => s.control.rate]] },
	errors: { unit: (v) => short(v) + ' %', least: 5, lines: [['canary', 'canary', (s) => s.canary.errors], ['control', 'control', (s) => s.control.errors]] },
	latency: {
		unit: ms, least: 10, lines: [
			['canary p50', 'canary', (s) => milli(s.canary.p50)], ['p99', 'canary faint', (s) => milli(s.canary.p99)],
			['control p50', 'control', (s) => milli(s.control.p50)], ['p99', 'control faint', (s) => milli(s.control.p99)],
		],
	},
	evidence: {
		unit: chance, least: 10, splits: decades, spans: true,
		lines: [['evidence', 'canary', (s) => (s.log_e == null ? null : Math.max(s.log_e, 0))], ['trips at', 'limit', (s) => s.trip_at || null]],
	},
};

// Looks on the canvas as the keys have them.
const stroke = (looks) => colour('--' + looks.split(' ')[0]) + (looks.includes('faint') ? '99' : '');
const dash = (looks) => (looks.includes('faint') ? [4, 3] : looks === 'limit' ? [2, 3] : undefined);

// Values with nothing on either side make no line: they are points.
const alone = (u, k) => u.data[k].flatMap((v, i, all) => (v != null && all[i - 1] == null && all[i + 1] == null ? [i] : []));

// times are the words below the time axis; a new day is named.
const times = (u, splits, axis, space, step) => splits.map((t, k) => {
	const d = new Date(t * 1000);
	if (step >= 86400) return day(d).slice(5);
	const text = clock(d, step < 60);
	const fresh = !k || new Date(splits[k - 1] * 1000).getDate() !== d.getDate();
	return fresh && u.scales.x.max - u.scales.x.min > 86400 ? `${text}\n${day(d).slice(5)}` : text;
});

// drawCharts draws the charts of the page, and keeps them up to date: add takes a
// sample, tick the server's time, and load asks for what was. tell is called with words
// where they are not up to date, and without where they are.
export const drawCharts = (base, flag, tell) => {
	const charts = window.consoleCharts = {};
	const note = document.getElementById('charts-note');
	let samples = [];
	let marks = [];
	let span = 'live'; // that is wanted
	let shown = 'live'; // that is there
	let ahead = 0; // of the server's clock, in seconds
	let owed = false; // what was asked for last has not come

	const now = () => Date.now() / 1000 + ahead;
	const range = () => {
		const end = Math.max(now(), samples.at(-1)?.t ?? 0);
		const length = lengths[shown];
		// A process that has just started fills its live charts all the same.
		const since = shown === 'live' && samples.length ? Math.max(end - samples[0].t + 10, 120) : length;
		return [end - Math.min(since, length), end];
	};

	// Time of which nothing is known is a gap, not a line across it.
	const spread = () => {
		const out = [];
		for (const s of samples) {
			const before = out.at(-1);
			if (before && s.t - before.t > 1.6 * Math.max(s.step, before.step)) out.push({ t: before.t + before.step, step: s.step, none: true });
			out.push(s);
		}
		return out;
	};
	const dataOf = (kind) => {
		const all = spread();
		return [all.map((s) => s.t), ...kind.lines.map(([, , of]) => all.map((s) => (s.none ? null : of(s) ?? null)))];
	};
	const boxes = () => [...document.querySelectorAll('[data-chart]')];

	// read writes the values below the cursor, or the last ones, beside their keys.
	const read = (u, name) => {
		const last = u.data[0].length - 1;
		const i = u.cursor.idx ?? last;
		const line = u.root.closest('figure').querySelector('.readout');
		const at = i < 0 ? '' : shown === 'live' ? clock(new Date(u.data[0][i] * 1000)) : moment(new Date(u.data[0][i] * 1000)).slice(5, -3);
		const words = [...kinds[name].lines.map((_, k) => (u.data[k + 1][i] == null ? '–' : kinds[name].unit(u.data[k + 1][i]))), at];
		line.querySelectorAll('.value').forEach((o, k) => { if (o.textContent !== words[k]) o.textContent = words[k]; });
	};

	// Trips and resets are lines from top to bottom.
	const drawMarks = (u) => {
		const { ctx, bbox } = u;
		for (const m of marks) {
			if (m.t < u.scales.x.min || m.t > u.scales.x.max) continue;
			const x = Math.round(u.valToPos(m.t, 'x', true)) + 0.5;
			ctx.save();
			ctx.strokeStyle = colour(m.what === 'tripped' ? '--bad' : '--good');
			ctx.lineWidth = devicePixelRatio * 1.5;
			ctx.beginPath();
			ctx.moveTo(x, bbox.top);
			ctx.lineTo(x, bbox.top + bbox.height);
			ctx.stroke();
			ctx.restore();
		}
	};

	const draw = () => {
		for (const box of boxes()) {
			const name = box.dataset.chart;
			const kind = kinds[name];
			charts[name]?.destroy();
			const [quiet, line] = [colour('--quiet'), colour('--line')];
			charts[name] = new uPlot({
				width: Math.max(box.clientWidth, 120), height: 150, legend: { show: false },
				cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false }, sync: { key: 'console' } },
				scales: { x: { range }, y: { range: (u, low, high) => [0, Math.max(high ?? 0, kind.least) * 1.08] } },
				axes: [
					{ stroke: quiet, grid: { show: false }, ticks: { stroke: line }, font: '11px system-ui', space: 58, values: times, size: (u, words) => (words?.some((w) => w?.includes('\n')) ? 40 : 28) },
					{ stroke: quiet, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: '11px system-ui', size: name === 'evidence' ? 74 : 54, values: (u, all) => all.map(kind.unit), splits: kind.splits },
				],
				series: [{}, ...kind.lines.map(([label, looks]) => ({
					label, stroke: stroke(looks), width: 1.5, dash: dash(looks), spanGaps: kind.spans,
					points: { show: false, size: 4, width: 0, fill: stroke(looks), filter: alone },
				}))],
				hooks: { draw: [drawMarks], setCursor: [(u) => read(u, name)], setData: [(u) => read(u, name)] },
			}, dataOf(kind), box);
			describe(box, name);
		}
	};

	// describe says in words what a chart ends with.
	const describe = (box, name) => {
		const last = samples.at(-1);
		const words = last ? kinds[name].lines.map(([label, looks, of]) => `${label.startsWith('p') ? looks.split(' ')[0] + ' ' : ''}${label} ${of(last) == null ? 'nothing' : kinds[name].unit(of(last))}`).join(', ') : 'there is nothing yet';
		box.setAttribute('role', 'img');
		box.setAttribute('aria-label', `${box.parentElement.querySelector('figcaption').textContent}: ${words}. Arrow keys read earlier values.`);
		read(charts[name], name);
	};

	// fold hides the evidence of a flag that has no guard.
	const fold = () => {
		document.querySelector('[data-chart=evidence]').closest('figure').hidden = !samples.some((s) => s.log_e != null);
	};

	const update = () => {
		fold();
		for (const box of boxes()) {
			charts[box.dataset.chart].setData(dataOf(kinds[box.dataset.chart]));
			describe(box, box.dataset.chart);
		}
	};

	const say = (words) => {
		note.textContent = words;
		note.hidden = !words;
	};

	let asked = 0;
	const load = async () => {
		const mine = ++asked;
		const wanted = span;
		let past = null;
		try {
			const answer = await fetch(`${base}flags/${encodeURIComponent(flag)}/series?last=${wanted}`, { signal: AbortSignal.timeout(10_000) });
			if (answer.ok) past = await answer.json();
		} catch { /* told below */ }
		if (mine !== asked) return; // somebody has asked for something else meanwhile
		owed = !Array.isArray(past?.samples);
		if (owed) { // what was there stays
			say(samples.length ? 'The past cannot be had now. What is shown is what came before.' : 'The past cannot be had now.');
			tell('the charts are not up to date');
			return;
		}
		const newer = wanted === 'live' && shown === 'live' ? samples.filter((s) => !(past.samples.at(-1)?.t >= s.t) && s.t > past.to) : [];
		samples = [...past.samples, ...newer];
		marks = past.marks;
		shown = wanted;
		ahead = past.to - Date.now() / 1000;
		say(samples.length ? '' : 'No requests in this time.');
		tell();
		update();
	};
	setInterval(() => { if (span !== 'live' && !document.hidden) load(); }, 60_000);

	const press = () => {
		for (const b of document.querySelectorAll('[data-span]')) b.setAttribute('aria-pressed', String(b.dataset.span === span));
	};
	document.addEventListener('click', (e) => {
		const button = e.target.closest?.('[data-span]');
		if (!button) return;
		span = button.dataset.span;
		press();
		load();
	});
	document.addEventListener('htmx:after:swap', press);

	// With the keyboard the cursor goes from sample to sample.
	const point = (i) => {
		for (const u of Object.values(charts)) {
			const at = u.data[0][i];
			u.setCursor(at == null ? { left: -10, top: -10 } : { left: u.valToPos(at, 'x'), top: 10 });
		}
	};
	document.addEventListener('keydown', (e) => {
		const u = charts[e.target.dataset?.chart];
		if (!u) return;
		const last = u.data[0].length - 1;
		const i = u.cursor.idx ?? last;
		const to = { ArrowLeft: Math.max(i - 1, 0), ArrowRight: Math.min(i + 1, last), Home: 0, End: last, Escape: -1 }[e.key];
		if (to === undefined) return;
		e.preventDefault();
		point(to);
	});
	// What is read is said aloud while the keyboard is there, and only then.
	const aloud = (e, on) => {
		const u = charts[e.target.dataset?.chart];
		if (!u) return;
		e.target.parentElement.querySelector('.readout').setAttribute('aria-live', on ? 'polite' : 'off');
		point(on && e.target.matches(':focus-visible') ? u.data[0].length - 1 : -1);
	};
	document.addEventListener('focusin', (e) => aloud(e, true));
	document.addEventListener('focusout', (e) => aloud(e, false));

	const widths = new ResizeObserver((all) => {
		for (const { target, contentRect: { width } } of all) {
			if (width > 0) charts[target.dataset.chart].setSize({ width, height: 150 });
		}
	});
	matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);

	for (const box of boxes()) {
		const line = box.parentElement.querySelector('.readout');
		line.append(...kinds[box.dataset.chart].lines.map(([label, looks]) => {
			const item = document.createElement('span');
			const key = document.createElement('span');
			key.className = 'key ' + looks;
			item.append(key, label + ' ', Object.assign(document.createElement('span'), { className: 'value' }));
			return item;
		}), Object.assign(document.createElement('span'), { className: 'value at' }));
	}
	draw();
	for (const box of boxes()) widths.observe(box);
	load();

	return {
		load,
		add: (s) => {
			if (shown !== 'live' || samples.at(-1)?.t >= s.t) return;
			samples.push(s);
			samples.splice(0, samples.length - mostSamples);
			if (!owed) say('');
			update();
		},
		tick: (t) => {
			ahead = t - Date.now() / 1000;
			if (owed) load();
			else if (shown === 'live') update(); // time goes on, even while nobody comes
		},
	};
};
