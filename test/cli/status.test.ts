import test from 'ava';
import type { AgentStatus } from '../../src/admin/messages.ts';
import { describeStatus } from '../../src/cli/status.ts';
import { filledSource, STATUS } from '../admin/filled-source.ts';
import { openAdmin } from '../admin/operator.ts';
import { run } from './run.ts';

const plain = (_style: string, text: string): string => text;
const NOW = Date.UTC(2030, 0, 1, 1);

test('an agent without a cluster is told in a few lines', (t) => {
  t.is(
    describeStatus(STATUS, NOW, plain),
    `Agent         ready
Version       1.2.3, process 7, started 2030-01-01 00:00:00 UTC (1h ago)
Trust domain  example.org
Socket        /run/signet/public/api.sock, 1 connection
Authority     embedded; 1 root, 1 JWT key in the bundle
              the certificate that signs ends 2030-01-02 00:00:00 UTC (in 23h)
Pods          are not attested
Identities    2 X509-SVIDs, 3 JWT-SVIDs
Rules         0 rules, 0 refused; 0 static entries
`,
  );
});

test('a degraded agent says why, and what is away since when', (t) => {
  const agent: AgentStatus = {
    ...STATUS,
    degraded: true,
    reasons: [
      { code: 'api', message: 'the API server is away', detail: 'ECONNREFUSED \u001b[2J' },
      { code: 'ca', message: 'the CA is away' },
    ],
    authority: {
      type: 'files',
      jwt_not_after: '2030-01-01T02:00:00Z',
      roots: 2,
      jwt_keys: 1,
      last_success: '2030-01-01T00:30:00Z',
      failing: 'tls.crt: expired',
    },
    pods: {
      node: 'node-1',
      size: 3,
      unlisted: 1,
      synced: true,
      last_contact: '2030-01-01T00:59:00Z',
      conflicts: 1,
      failing: 'watch: 403',
    },
    identities: { x509: 1, jwt: 0, soonest_expiry: '2030-01-01T01:10:00Z' },
    rules: { total: 1, refused: 1, static_entries: 1 },
  };
  const text = describeStatus(agent, NOW, plain);
  for (const part of [
    /^Agent +ready, but degraded\n +the API server is away: ECONNREFUSED \\u\{1b\}\[2J\n +the CA is away\n/,
    /the CA above was last reached 2030-01-01 00:30:00 UTC \(30m ago\)\n +tls\.crt: expired\n/,
    /Pods +3 pods on node node-1, 1 of them gone from the API\n +complete; the API server last told something .*\(1m ago\)\n +two static pods have claimed one hash once/,
    /Identities +1 X509-SVID, 0 JWT-SVIDs; the first X509-SVID ends .*\(in 10m\)\n/,
    /Rules +1 rule, 1 refused; 1 static entry\n$/,
  ])
    t.regex(text, part);
  t.regex(
    describeStatus({ ...agent, pods: { node: 'n', size: 0, unlisted: 0, synced: false, conflicts: 0 } }, NOW, plain),
    /0 pods on node n\n +the list is not complete yet\n/,
  );
});

test('signet status ends with 0 when the agent is ready, degraded or not, and with 1 when it is not', async (t) => {
  let state: Partial<AgentStatus> = {};
  const { socketPath } = await openAdmin(t, filledSource({ overrides: { status: () => ({ ...STATUS, ...state }) } }));
  const status = () => run(['status', '--admin', socketPath]);
  t.is((await status()).code, 0);
  state = { degraded: true };
  t.is((await status()).code, 0);
  state = { ready: false, reasons: [{ code: 'starting', message: 'it is starting' }] };
  const { code, stdout } = await status();
  t.is(code, 1);
  t.regex(stdout, /^Agent +not ready\n +it is starting\n/);
  t.like(JSON.parse((await run(['status', '--admin', socketPath, '-o', 'json'])).stdout), { ready: false });
});
