// Times as people read them: in the browser's zone, which is named once.

const two = (n) => String(n).padStart(2, '0');

export const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || 'the time of this browser';

export const day = (d) => `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}`;
export const clock = (d, seconds = true) => `${two(d.getHours())}:${two(d.getMinutes())}${seconds ? ':' + two(d.getSeconds()) : ''}`;
export const moment = (d) => `${day(d)} ${clock(d)}`;

// localise writes the times below a node in the browser's zone, and names that.
export const localise = (root) => {
	for (const t of root.querySelectorAll('time[datetime]')) {
		const words = moment(new Date(t.dateTime));
		if (t.textContent !== words) t.textContent = words;
	}
	const named = document.getElementById('zone');
	if (named.textContent !== zone) named.textContent = zone;
};
