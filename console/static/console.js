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

	// An answer that is no page of ours (a login, an error, a flag that is gone) leaves
	// what is there, and says so.
	let stale = false;
	document.addEventListener('htmx:after:request', (e) => {
		const { ctx } = e.detail;
		const part = ctx.select && new DOMParser().parseFromString(ctx.text, 'text/html').querySelector(ctx.select);
		if (ctx.response.status < 400 && part) {
			if (stale) say('on', 'live');
			stale = false;
			return;
		}
		e.preventDefault();
		stale = true;
		say('lost', ctx.response.status === 404 ? 'gone: this is what was there' : 'not up to date: load the page again');
	});
	document.addEventListener('htmx:error', () => { stale = true; say('lost', 'not up to date'); });

	// A page that nobody sees holds no connection: browsers have few for each host.
	const listen = (address, handlers) => {
		let source;
		const open = () => {
			source?.close();
			source = new EventSource(address);
			source.onopen = () => { if (!stale) say('on', 'live'); };
			source.onerror = () => say('lost', source.readyState === EventSource.CLOSED ? 'not live: load the page again' : 'connecting…');
			for (const [name, handle] of Object.entries(handlers)) source.addEventListener(name, (e) => handle(JSON.parse(e.data)));
		};
		document.addEventListener('visibilitychange', () => {
			if (document.hidden) {
				source.close();
				say('off', 'not live');
				return;
			}
			open();
			refresh();
		});
		if (!document.hidden) open();
		else source = { close() {} };
	};

	// Another source's text is loaded, unless something was typed into this one's.
	document.addEventListener('change', (e) => {
		const text = document.querySelector('textarea[name=text]');
		if (e.target.name === 'source' && text && text.value === text.defaultValue) location.assign(`${base}preview?source=${encodeURIComponent(e.target.value)}`);
	});

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
	let told = 0;

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
		return [all.map((s) => s.t), ...kinds[kind].lines.map(([, , of]) => all.map((s) => (s.none ? null : of(s) ?? null)))];
	};

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
			describe(box, name);
		}
	};

	// describe says in words what a chart ends with.
	const describe = (box, name) => {
		const last = samples.at(-1);
		const words = last ? kinds[name].lines.map(([label, , of]) => `${label} ${kinds[name].value ? kinds[name].value(null, of(last)) : Number(of(last) ?? 0).toPrecision(3)}`).join(', ') : 'there is nothing yet';
		box.setAttribute('role', 'img');
		box.setAttribute('aria-label', `${box.parentElement.querySelector('figcaption').textContent}: ${words}`);
	};

	const update = () => {
		for (const box of document.querySelectorAll('[data-chart]')) {
			charts[box.dataset.chart]?.setData(dataOf(box.dataset.chart));
			describe(box, box.dataset.chart);
		}
	};

	let asked = 0;
	const load = async (last) => {
		const mine = ++asked;
		let past = [];
		try {
			const answer = await fetch(`${base}flags/${encodeURIComponent(flag)}/series?last=${last}`);
			if (answer.ok) past = (await answer.json()).samples;
		} catch { /* the stream says that nobody is there */ }
		if (mine !== asked) return; // somebody has asked for something else meanwhile
		samples.splice(0, samples.length, ...past);
		draw();
	};
	setInterval(() => { if (span !== 'live' && !document.hidden) load(span); }, 60_000);

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
			if (verdict && now !== verdict || ++told % 3 === 0) refresh();
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
