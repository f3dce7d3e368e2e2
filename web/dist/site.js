// Keeps the page fresh while it is open: health and visits every few seconds, nothing while it is hidden.
const element = (id) => document.getElementById(id);
const words = { ok: 'running', degraded: 'running, database away', away: 'not reachable' };

function show(state) {
  element('status').dataset.state = state;
  element('status-text').textContent = words[state] ?? state;
}

async function ask(path) {
  const answer = await fetch(path, { cache: 'no-store', signal: AbortSignal.timeout(4000) });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

async function refresh() {
  try {
    const [health, site] = await Promise.all([ask('/api/v1/health'), ask('/api/v1/site')]);
    show(health.status);
    element('visits-total').textContent = site.visits?.total ?? '–';
    element('visits-today').textContent = site.visits?.today ?? '–';
    element('release').textContent = site.release ? `v${site.release}` : 'local';
  } catch {
    show('away');
  }
}

refresh();
setInterval(() => { if (!document.hidden) refresh(); }, 5000);
document.addEventListener('visibilitychange', () => { if (!document.hidden) refresh(); });
