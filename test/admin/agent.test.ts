import test, { type ExecutionContext } from 'ava';
import type { AgentStatus, Explanation } from '../../src/admin/messages.ts';
import { OWN_ID, startTestAgent, type TestAgent } from '../support/agent.ts';
import { run, type Result } from '../cli/run.ts';
import { ask } from './operator.ts';

const UID = process.geteuid?.() ?? 0;

async function startAgent(t: ExecutionContext): Promise<TestAgent & { signet(words: string): Promise<Result> }> {
  const agent = await startTestAgent({ config: { entries: [{ id: OWN_ID, selectors: [`unix:uid:${UID}`], hint: 'own' }] } });
  t.teardown(() => agent.stop());
  const env = { SIGNET_ADMIN_SOCKET: agent.config.admin.socketPath, SPIFFE_ENDPOINT_SOCKET: `unix://${agent.socketPath}` };
  return { ...agent, signet: (words) => run(words.split(' '), { env }) };
}

test('a whole agent explains what it has given, until when, and never the key or the token', async (t) => {
  const { signet, config } = await startAgent(t);
  const before = await signet(`explain --pid ${process.pid}`);
  t.is(before.code, 0);
  t.regex(before.stdout, /X509-SVID {2}none held now/);
  t.is((await signet('fetch x509')).code, 0);
  const { token } = (JSON.parse((await signet('fetch jwt -a db -o json')).stdout) as { svids: [{ token: string }] }).svids[0];
  const { body } = await ask(config.admin.socketPath, `/v1/explain?pid=${process.pid}`);
  const { identities, answer } = body as Explanation;
  t.like(answer, { kind: 'identities' });
  t.like(identities, { 0: { spiffe_id: OWN_ID, default: true, hint: 'own', jwt: { tokens: 1 } }, length: 1 });
  const { serial, not_after: notAfter = '' } = identities[0]?.x509 ?? {};
  const shown = JSON.parse((await signet('fetch x509 -o json')).stdout) as { svids: [{ serial: string; not_after: string }] };
  t.deepEqual([serial?.toLowerCase(), notAfter], [shown.svids[0].serial, shown.svids[0].not_after]);
  const text = JSON.stringify(body);
  t.false(text.includes(token));
  t.notRegex(text, /BEGIN|private|eyJ/i);
});

test('a whole agent tells its status and that it has no rules', async (t) => {
  const { signet, config, agent } = await startAgent(t);
  const { code, stdout } = await signet('status --output json');
  t.is(code, 0);
  t.like(JSON.parse(stdout) as AgentStatus, {
    pid: process.pid,
    trust_domain: 'example.org',
    ready: true,
    degraded: false,
    reasons: [],
    authority: { type: 'embedded', roots: 1, jwt_keys: 1 },
    rules: { static_entries: 1 },
  });
  t.is((await signet('rules')).code, 0);
  t.regex((await signet('explain --pod a/b')).stderr, /does not attest pods/);
  await agent.stop();
  const gone = await signet('status');
  t.is(gone.code, 3);
  t.true(gone.stderr.includes(`there is no agent at ${config.admin.socketPath}`));
});
