// What makes the console's pages live: they are whole without it. Pages refresh
// themselves when the server says that something has changed; a flag's page draws its
// charts.

import { drawCharts } from './charts.js';
import { listen, trouble } from './live.js';
import { localise, moment } from './times.js';

const base = document.body.dataset.base;
const flag = document.getElementById('flag')?.dataset.flag;

localise(document);

// refresh has the page's parts loaded anew, at most twice a second.
let waiting = 0;
const refresh = () => {
	waiting ||= setTimeout(() => {
		waiting = 0;
		htmx.trigger(document.body, 'refresh');
	}, 500);
};

// What a part shows already is not sent again.
const tags = new Map();
document.addEventListener('htmx:config:request', (e) => {
	const { ctx } = e.detail;
	if (tags.has(ctx.select)) ctx.request.headers['If-None-Match'] = tags.get(ctx.select);
});

// An answer that is no page of ours (a login, an error, a flag that is gone) leaves
// what is there, and says so.
document.addEventListener('htmx:after:request', (e) => {
	const { ctx } = e.detail;
	const { status } = ctx.response;
	const part = status < 300 && ctx.select && new DOMParser().parseFromString(ctx.text, 'text/html').querySelector(ctx.select);
	if (part || status === 304) {
		trouble(ctx.select);
		return;
	}
	e.preventDefault();
	trouble(ctx.select, status === 404 ? 'gone: this is what was there' : 'not up to date: load the page again');
});
document.addEventListener('htmx:error', (e) => { if (e.detail.ctx?.select) trouble(e.detail.ctx.select, 'not up to date'); });

document.addEventListener('htmx:after:swap', (e) => {
	const { ctx } = e.detail;
	const tag = ctx?.response?.headers.get('ETag');
	if (tag) tags.set(ctx.select, tag);
	localise(document);
	// Forms that are not loaded anew hold for longer by the banners' token.
	const { token } = document.getElementById('banners').dataset;
	for (const input of document.querySelectorAll('input[name=token]')) input.value = token;
});

// Another source's text is loaded, unless something was typed into this one's.
document.addEventListener('change', (e) => {
	const text = document.querySelector('textarea[name=text]');
	if (e.target.name === 'source' && text && text.value === text.defaultValue) location.assign(`${base}preview?source=${encodeURIComponent(e.target.value)}`);
});

// The address has what was searched for, so that whoever comes back finds it again.
const filter = document.querySelector('.filter');
filter?.addEventListener('input', () => {
	const asked = [...new FormData(filter)].filter(([, value]) => value);
	history.replaceState(null, '', base + (asked.length ? '?' + new URLSearchParams(asked) : ''));
});

// In the playground a time is typed as it is shown, in the browser's zone.
const at = document.querySelector('input[name=at]');
if (at) {
	const typed = new Date(at.value);
	if (/T.*Z$/.test(at.value) && !Number.isNaN(typed.valueOf())) at.value = moment(typed);
	at.form.addEventListener('submit', () => {
		const [, date, time] = at.value.trim().match(/^(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d(?::\d\d)?)$/) ?? [];
		const then = new Date(`${date}T${time}`);
		if (date && !Number.isNaN(then.valueOf())) at.value = then.toISOString();
	});
}

// Enter in the percentage sets it.
document.addEventListener('keydown', (e) => {
	if (e.key !== 'Enter' || e.target.name !== 'percentage') return;
	e.preventDefault();
	document.querySelector('.share button').click();
});

if (flag) {
	const charts = drawCharts(base, flag, (words) => trouble('charts', words));
	let standing = '';
	listen(`${base}flags/${encodeURIComponent(flag)}/live`, {
		sample: (s) => {
			charts.add(s);
			const now = `${s.now.status} ${s.now.percentage} ${s.now.verdict}`;
			if (standing && now !== standing) refresh();
			standing = now;
		},
		changed: (n) => {
			if (n.flag && n.flag !== flag) {
				if (n.event.endsWith('.tripped') || n.event.endsWith('.reset')) refresh(); // the banners tell of it
				return;
			}
			refresh();
			charts.load();
		},
		tick: (now, first) => {
			charts.tick(now.t);
			if (!first) refresh();
		},
	}, () => {
		refresh();
		charts.load();
	});
} else {
	listen(base + 'events', { changed: refresh, tick: (_, first) => { if (!first) refresh(); } }, refresh);
}
