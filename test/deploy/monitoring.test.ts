import { spawnSync, type SpawnSyncReturns } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { load } from 'js-yaml';
import { REFUSAL_REASONS } from '../../src/events.ts';
import { REASON_CODES } from '../../src/telemetry/readiness.ts';
import { testIf } from '../support/kernel-conditions.ts';
import { RawClient } from '../support/raw-client.ts';
import { observeAgent } from '../telemetry/observed-agent.ts';
import { scrape, type Scrape } from '../telemetry/scrape.ts';

const DIRECTORY = fileURLToPath(new URL('../../deploy/monitoring/', import.meta.url));
const read = (name: string): string => readFileSync(join(DIRECTORY, name), 'utf8');

interface Rule {
  readonly alert: string;
  readonly expr: string;
  readonly labels: { readonly severity: string };
  readonly annotations: { readonly summary: string; readonly description: string };
}

interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
  readonly datasource?: { readonly type: string; readonly uid: string };
  readonly targets?: readonly { readonly refId: string; readonly expr: string; readonly datasource: { readonly uid: string } }[];
}

interface Dashboard {
  readonly uid: string;
  readonly schemaVersion: number;
  readonly panels: readonly Panel[];
  readonly templating: { readonly list: readonly { readonly name: string; readonly query: unknown }[] };
}

const rules = (load(read('signet.rules.yaml')) as { groups: { rules: Rule[] }[] }).groups.flatMap((group) => group.rules);
const dashboard = JSON.parse(read('signet.dashboard.json')) as Dashboard;
const expressions = dashboard.panels.flatMap((panel) => (panel.targets ?? []).map(({ expr }) => expr));

/** Debian has it in the package `prometheus`. */
const promtool = [...(process.env['PATH'] ?? '').split(delimiter), join(homedir(), '.cache/signet-tools/bin')]
  .map((directory) => join(directory, 'promtool'))
  .find((path) => existsSync(path));
const needsPromtool = [promtool !== undefined, 'needs promtool'] as const;

function run(args: readonly string[], input = ''): SpawnSyncReturns<string> {
  return spawnSync(promtool ?? '', [...args], { cwd: DIRECTORY, encoding: 'utf8', input, timeout: 60_000 });
}

function metricsIn(expression: string): string[] {
  return [...expression.replaceAll(/"[^"]*"/g, '').matchAll(/\b(?:signet|process|nodejs)_[a-z0-9_]+/g)].map(([name]) => name);
}

/** What a whole agent exposes once it has been used. */
async function exposed(): Promise<Scrape> {
  const { agent, address, socketPath, stop } = await observeAgent();
  const client = new RawClient(socketPath);
  try {
    await client.stream('/SpiffeWorkloadAPI/FetchX509SVID').next();
    await client.unary('/SpiffeWorkloadAPI/FetchJWTSVID', { audience: ['x'] });
    agent.events.publish('upstreamAnswered', { upstream: 'files', durationMs: 1 });
    return await scrape(address);
  } finally {
    client.close();
    await stop();
  }
}

testIf(needsPromtool, 'promtool finds no fault in the alerts, and their tests pass', (t) => {
  const checked = run(['check', 'rules', 'signet.rules.yaml']);
  t.is(checked.status, 0, checked.stderr);
  const tested = run(['test', 'rules', 'signet.rules.test.yaml']);
  t.is(tested.status, 0, `${tested.stdout}${tested.stderr}`);
});

testIf(needsPromtool, 'promtool finds no fault in what an agent exposes', async (t) => {
  const { text } = await exposed();
  const { status, stdout, stderr } = run(['check', 'metrics'], text);
  t.is(`${stdout}${stderr}`, '');
  t.is(status, 0);
});

testIf(needsPromtool, 'every expression of the dashboard can be read', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'signet-monitoring-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const path = join(directory, 'rules.yaml');
  const plain = (expr: string): string => expr.replaceAll('$__rate_interval', '5m').replaceAll(/\$(?:job|instance)/g, '.*');
  writeFileSync(path, JSON.stringify({ groups: [{ name: 'all', rules: expressions.map((expr, index) => ({ record: `e:${index}`, expr: plain(expr) })) }] }));
  const { status, stderr } = run(['check', 'rules', path]);
  t.is(status, 0, stderr);
});

test('every metric that an alert, the dashboard or the documentation names is one that an agent exposes', async (t) => {
  const { names, families } = await exposed();
  for (const { alert, expr } of rules) for (const name of metricsIn(expr)) t.true(names.has(name) || families.has(name), `${alert}: ${name}`);
  for (const expr of expressions) for (const name of metricsIn(expr)) t.true(names.has(name) || families.has(name), `${expr}: ${name}`);
  const documented = new Set([...read('README.md').matchAll(/`((?:signet|process|nodejs)_[a-z0-9_]+)`/g)].map(([, name = '']) => name));
  t.deepEqual([...documented].sort(), [...families].sort());
});

test('every metric of Signet is shown on the dashboard', async (t) => {
  const shown = new Set(expressions.flatMap(metricsIn).map((name) => name.replace(/_bucket$/, '')));
  for (const name of (await exposed()).families) t.true(shown.has(name), name);
});

test('every reason that an alert names is one that there is', (t) => {
  const known = new Set<string>([...REFUSAL_REASONS, ...REASON_CODES]);
  for (const { alert, expr } of rules) {
    for (const [, values = ''] of expr.matchAll(/reason=~?"([^"]+)"/g)) for (const value of values.split('|')) t.true(known.has(value), `${alert}: ${value}`);
  }
});

test('every reason for which an agent is not ready, or degraded, is documented', (t) => {
  const readme = read('README.md');
  for (const code of REASON_CODES) t.true(readme.includes(`| \`${code}\` |`), code);
});

test('every alert has a severity, says what it means, and has a test', (t) => {
  const tests = read('signet.rules.test.yaml');
  for (const { alert, labels, annotations } of rules) {
    t.true(['warning', 'critical'].includes(labels.severity), alert);
    t.true(annotations.summary.length > 10 && annotations.description.length > 10, alert);
    t.true(tests.includes(`${alert}`), `${alert} has no test`);
  }
  t.is(new Set(rules.map(({ alert }) => alert)).size, rules.length);
});

test('the panels of the dashboard have IDs of their own, lie side by side, and read the chosen data source', (t) => {
  const { panels, schemaVersion, templating } = dashboard;
  t.true(schemaVersion >= 36);
  t.is(new Set(panels.map(({ id }) => id)).size, panels.length);
  t.is(new Set(panels.map(({ title }) => title)).size, panels.length);
  t.deepEqual(templating.list.map(({ name }) => name), ['datasource', 'job', 'instance']);
  const cells = new Set<string>();
  for (const { title, type, gridPos: { x, y, w, h }, datasource, targets = [] } of panels) {
    t.true(x >= 0 && x + w <= 24 && w > 0 && h > 0, title);
    for (let column = x; column < x + w; column += 1) {
      for (let line = y; line < y + h; line += 1) {
        t.false(cells.has(`${column},${line}`), `${title} lies over another panel`);
        cells.add(`${column},${line}`);
      }
    }
    if (type === 'row') continue;
    t.deepEqual(datasource, { type: 'prometheus', uid: '${datasource}' }, title);
    t.true(targets.length > 0, title);
    t.is(new Set(targets.map(({ refId }) => refId)).size, targets.length, title);
    for (const target of targets) t.is(target.datasource.uid, '${datasource}', title);
  }
});
