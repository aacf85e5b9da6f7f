// What makes the console's pages live: they are whole without it. Pages refresh
// themselves when the server says that something has changed; a flag's page draws its
// charts.
'use strict';

(() => {
	const base = document.body.dataset.base;
	const live = document.getElementById('live');
	const flag = document.getElementById('flag')?.dataset.flag;

	const say = (state, words) => {
		live.dataset.state = state;
		if (live.textContent !== words) live.textContent = words;
	};

	// refresh has the page's parts loaded anew, at most twice a second.
	let waiting = 0;
	const refresh = () => {
		if (waiting) return;
		waiting = setTimeout(() => {
			waiting = 0;
			htmx.trigger(document.body, 'refresh');
		}, 500);
	};

	const listen = (address, handlers) => {
		const source = new EventSource(address);
		source.onopen = () => say('on', 'live');
		source.onerror = () => say('lost', source.readyState === EventSource.CLOSED ? 'not live: load the page again' : 'connecting…');
		for (const [name, handle] of Object.entries(handlers)) source.addEventListener(name, (e) => handle(JSON.parse(e.data)));
		return source;
	};

	if (!flag) {
		let first = true;
		listen(base + 'events', { changed: refresh, tick: () => { if (!first) refresh(); first = false; } });
		return;
	}

	// The charts.
	const charts = window.consoleCharts = {};
	const samples = [];
	const mostSamples = 300; // ten minutes
	let span = 'live';
	let verdict = '';

	const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
	const chance = (log) => {
		const e = Math.exp(log);
		return e < 1e6 ? Math.round(e).toLocaleString('en') : '10^' + Math.round(log / Math.LN10);
	};
	// decades are the marks of a scale of logarithms.
	const decades = (u) => {
		const all = Math.ceil((u.scales.y.max ?? 10) / Math.LN10);
		const every = Math.max(1, Math.round(all / 4));
		return Array.from({ length: all }, (_, k) => k * Math.LN10).filter((_, k) => k % every === 0);
	};

	const kinds = {
		rate: { lines: [['canary', '--canary', (s) => s.canary.rate], ['control', '--control', (s) => s.control.rate]] },
		errors: { lines: [['canary', '--canary', (s) => s.canary.errors], ['control', '--control', (s) => s.control.errors]], range: [0, 5] },
		latency: {
			lines: [
				['canary p50', '--canary', (s) => s.canary.p50 && s.canary.p50 * 1000], ['canary p99', '--canary', (s) => s.canary.p99 && s.canary.p99 * 1000, [4, 3]],
				['control p50', '--control', (s) => s.control.p50 && s.control.p50 * 1000], ['control p99', '--control', (s) => s.control.p99 && s.control.p99 * 1000, [4, 3]],
			],
		},
		evidence: {
			lines: [['evidence', '--canary', (s) => (s.log_e == null ? null : Math.max(s.log_e, 0))], ['limit', '--limit', (s) => s.trip_at || null, [2, 3]]],
			range: [0, 10], value: (u, v) => (v == null ? '–' : '1 in ' + chance(v)), splits: decades, axis: (u, marks) => marks.map(chance),
		},
	};

	const dataOf = (kind) => [samples.map((s) => s.t), ...kinds[kind].lines.map(([, , of]) => samples.map((s) => of(s) ?? null))];

	const draw = () => {
		for (const box of document.querySelectorAll('[data-chart]')) {
			const name = box.dataset.chart;
			const kind = kinds[name];
			charts[name]?.destroy();
			const quiet = colour('--quiet');
			const line = colour('--line');
			charts[name] = new uPlot({
				width: Math.max(box.clientWidth, 120), height: 150, cursor: { y: false, points: { size: 5 } }, legend: { show: false },
				scales: { y: { range: (u, low, high) => [0, Math.max(high ?? 0, kind.range?.[1] ?? 0.1) * 1.05] } },
				axes: [
					{ stroke: quiet, grid: { show: false }, ticks: { stroke: line }, font: '11px system-ui', size: 28 },
					{ stroke: quiet, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: '11px system-ui', size: 48, values: kind.axis, splits: kind.splits },
				],
				series: [{}, ...kind.lines.map(([label, stroke, , dash]) => ({ label, stroke: colour(stroke), width: 1.5, dash, spanGaps: name === 'evidence', points: { show: false }, value: kind.value }))],
			}, dataOf(name), box);
			const last = samples.at(-1);
			box.setAttribute('role', 'img');
			box.setAttribute('aria-label', box.parentElement.querySelector('figcaption').textContent + (last ? '; the figures are in the table below' : '; there is nothing yet'));
		}
	};

	const update = () => {
		for (const [name, chart] of Object.entries(charts)) chart.setData(dataOf(name));
	};

	const load = async (last) => {
		const answer = await fetch(`${base}flags/${encodeURIComponent(flag)}/series?last=${last}`);
		if (!answer.ok) return;
		const { samples: past } = await answer.json();
		samples.splice(0, samples.length, ...past);
		draw();
	};

	document.addEventListener('click', (e) => {
		const button = e.target.closest?.('[data-span]');
		if (!button) return;
		span = button.dataset.span;
		mark();
		load(span);
	});
	const mark = () => {
		for (const b of document.querySelectorAll('[data-span]')) b.setAttribute('aria-pressed', String(b.dataset.span === span));
	};

	listen(`${base}flags/${encodeURIComponent(flag)}/live`, {
		sample: (s) => {
			if (span === 'live' && !(samples.at(-1)?.t >= s.t)) {
				samples.push(s);
				if (samples.length > mostSamples) samples.splice(0, samples.length - mostSamples);
				update();
			}
			const now = `${s.now.status} ${s.now.percentage} ${s.now.verdict}`;
			if (verdict && now !== verdict) refresh();
			verdict = now;
		},
		changed: (n) => { if (!n.flag || n.flag === flag) refresh(); },
	});

	document.addEventListener('htmx:after:swap', mark);
	addEventListener('resize', () => { for (const [name, chart] of Object.entries(charts)) chart.setSize({ width: Math.max(document.querySelector(`[data-chart="${name}"]`).clientWidth, 120), height: 150 }); });
	matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
	draw();
	load('live');
})();
