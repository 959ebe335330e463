import { X509Certificate } from 'node:crypto';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { connect } from 'node:tls';
import test from 'ava';
import { jwtAuthority, newKeyPair } from '../../src/authority/keys.ts';
import { judgeAnswer } from '../../src/authority/node-ca.ts';
import { systemRandom } from '../../src/random.ts';
import { createCsr } from '../../src/authority/certificate.ts';
import { SpireIntermediate } from '../../src/upstream/spire/intermediate.ts';
import { SpireServer, spireMissing } from '../support/spire-server.ts';
import { asking, fakeApi, openSession, patience, popMaterial, scratch, trustDomain, until } from './spire-tools.ts';

const missing = spireMissing();
const testIf = missing === undefined ? test.serial : test.skip;
const title = (text: string): string => (missing === undefined ? text : `${text} (${missing})`);

let server: SpireServer;
test.before(async () => {
  if (missing === undefined) server = await SpireServer.start({ agentTtl: '1m' });
});
test.after.always(async () => {
  await server?.[Symbol.asyncDispose]();
});

async function agentsAtServer(): Promise<string[]> {
  return [...(await server.cli('agent', 'list')).matchAll(/^SPIFFE ID\s*: (\S+)/gm)].map(([, id = '']) => id);
}

testIf(title('a node joins, and gets a node CA that stands the judgement but for its path length'), async (t) => {
  const { session, lines } = await openSession(t, server);
  const upstream = new SpireIntermediate(session);
  const keys = await newKeyPair('ec-p256');
  const request = { ...(await asking()), publicKey: keys.publicKey, csr: () => createCsr(keys, trustDomain, systemRandom) };
  const answer = await upstream.sign(request, patience());
  const asked = { trustDomain, keys, latestEnd: Date.now() + 3_900_000, nameConstraint: 'none' } as const;
  t.throws(() => judgeAnswer(answer, asked, Date.now()), { message: /its path length is not limited/ });
  t.notThrows(() => judgeAnswer(answer, { ...asked, acceptUnconstrainedCA: true }, Date.now()));
  t.deepEqual(answer.roots, upstream.roots());
  t.true(answer.roots.some((root) => root.equals(upstream.issuer() ?? Buffer.alloc(0))));
  // That a new agent has no entry yet is nothing to tell.
  t.deepEqual(lines.filter((line) => line.startsWith('failed')), []);
  t.is(upstream.problem(), undefined);
});

testIf(title('after a restart the node goes on with what it has kept: its token is used, and no new agent appears'), async (t) => {
  const first = await openSession(t, server);
  await until('it has joined', () => first.lines.some((line) => line.startsWith('upstream.joined')));
  await first.session.close();
  t.is(statSync(join(first.directory, 'spire-agent.json')).mode & 0o777, 0o600);
  const before = await agentsAtServer();
  const { session, lines } = await openSession(t, server, { directory: first.directory });
  t.truthy(await new SpireIntermediate(session).sign(await asking(), patience()));
  t.deepEqual(await agentsAtServer(), before);
  t.deepEqual(lines, []);
});

testIf(title('the SVID of the agent is renewed at half of its life, and the new one counts'), async (t) => {
  const { session, lines, directory } = await openSession(t, server);
  const stateOf = (): string => readFileSync(join(directory, 'spire-agent.json'), 'utf8');
  const before = stateOf();
  // It lives a minute: SPIRE's shortest for an agent.
  const end = performance.now() + 50_000;
  while (!lines.some((line) => line.startsWith('upstream.renewed')) && performance.now() < end) await new Promise((resolve) => setTimeout(resolve, 200));
  t.true(lines.some((line) => line.startsWith('upstream.renewed')), lines.join('\n'));
  t.not(stateOf(), before);
  await session.look();
  t.truthy(await new SpireIntermediate(session).sign(await asking(), patience()));
  t.is(session.problem(), undefined);
});

testIf(title('a JWT key is in the bundle of the server before anybody is told that it is; the keys of the server are there too'), async (t) => {
  const { session } = await openSession(t, server);
  const { kid, publicKey } = jwtAuthority((await newKeyPair('ec-p256')).publicKey);
  const key = { keyId: kid, publicKey: publicKey.export({ format: 'der', type: 'spki' }), expiresAt: Math.floor(Date.now() / 1_000) + 3_600, tainted: false };
  const told: string[] = [];
  session.publish(() => [key], (kids) => void told.push(...kids));
  session.nudge();
  await until('it is told', () => told.includes(kid));
  const atServer = JSON.parse(await server.cli('bundle', 'show', '-format', 'spiffe')) as { keys: { kid?: string; use: string }[] };
  const kids = atServer.keys.filter(({ use }) => use === 'jwt-svid').map(({ kid: one }) => one);
  t.true(kids.includes(kid));
  t.true(kids.length >= 2);
  t.deepEqual(session.bundle.jwtAuthorities().map((one) => one.kid).sort(), kids.sort() as string[]);
  // Another node has it by the bundle alone.
  const other = await openSession(t, server);
  t.true(other.session.bundle.has(kid));
});

testIf(title('a used token is told with what helps, asked for once, and a new one in the file is taken without a restart'), async (t) => {
  const token = await server.token();
  await openSession(t, server, { token });
  const { session, lines, tokenFile } = await openSession(t, server, { token });
  t.regex(session.problem() ?? '', /cannot join by join_token .*already been used.*What to do: make a token with "spire-server token generate.*write it to .*token; no restart is needed/);
  await session.look();
  await session.look();
  t.is(lines.filter((line) => line.startsWith('failed')).length, 1, lines.join('\n'));
  writeFileSync(tokenFile, await server.token());
  await until('it has joined', () => session.problem() === undefined, lines);
  t.truthy(await new SpireIntermediate(session).sign(await asking(), patience()));
});

testIf(title('a token that has ended is told as such'), async (t) => {
  const token = await server.token('/signet/nodes', 1);
  await new Promise((resolve) => setTimeout(resolve, 2_100));
  const { session } = await openSession(t, server, { token });
  t.regex(session.problem() ?? '', /cannot join by join_token .*(expired|does not exist)/);
});

testIf(title('an agent that was evicted, or banned, is told as such, and comes back with a new token'), async (t) => {
  for (const [what, line] of [['evict', /does not know our agent/], ['ban', /our agent is banned.*lift the ban with "spire-server agent evict -spiffeID spiffe:\/\/example\.org\/spire\/agent\/join_token/]] as const) {
    const { session, lines, tokenFile, directory } = await openSession(t, server);
    const id = new X509Certificate((JSON.parse(readFileSync(join(directory, 'spire-agent.json'), 'utf8')) as { chain: string[] }).chain[0] ?? '').subjectAltName?.slice('URI:'.length) ?? '';
    await server.cli('agent', what, '-spiffeID', id);
    await until(`${what} is told`, () => lines.some((one) => line.test(one)), lines);
    writeFileSync(tokenFile, await server.token());
    await until('it is well', () => session.problem() === undefined, lines);
    t.truthy(await new SpireIntermediate(session).sign(await asking(), patience()));
    await session.close();
  }
});

testIf(title('a deleted entry is told with the command that makes it, which helps'), async (t) => {
  const parent = '/signet/lonely';
  const { session, lines } = await openSession(t, server, { token: await server.token(parent) });
  const upstream = new SpireIntermediate(session);
  await t.throwsAsync(upstream.sign(await asking(), patience()), { message: /has no downstream entry for our agent .*What to do: "spire-server entry create -downstream/ });
  const advice = /"spire-server (entry create [^"]+)"/.exec(session.problem() ?? '')?.[1]?.replace('-parentID ID', `-parentID ${server.id(parent)}`).split(' ') ?? [];
  await server.cli(...advice);
  await until('the entry is there', () => session.problem() === undefined, lines);
  t.truthy(await upstream.sign(await asking(), patience()));
});

testIf(title('a server of another trust domain is never believed'), async (t) => {
  await using foreign = await SpireServer.start({ trustDomain: 'evil.org' });
  const { session } = await openSession(t, foreign, { token: await foreign.token() });
  t.regex(session.problem() ?? '', /cannot be authenticated: it is not the SPIRE server of the trust domain: its certificate is for \["spiffe:\/\/evil\.org\/spire\/server"\]/);
  t.deepEqual(session.bundle.roots(), []);
});

testIf(title('without a bundle for the first contact nobody is asked'), async (t) => {
  const { session } = await openSession(t, server, { bundleFile: join(import.meta.dirname, 'nothing-here.pem') });
  t.regex(session.problem() ?? '', /trust bundle of the SPIRE server in .*nothing-here\.pem cannot be used: .*ENOENT.*spire-server bundle show/);
});

for (const type of ['ec', 'rsa'] as const) {
  testIf(title(`x509pop with a key of type ${type}: joins, and proves itself again when it was evicted`), async (t) => {
    const pop = popMaterial(scratch(t), type);
    await using own = await SpireServer.start({ popCa: readFileSync(pop.ca, 'utf8') });
    const parent = own.id('/signet/nodes');
    await own.cli('entry', 'create', '-node', '-spiffeID', parent, '-selector', 'x509pop:subject:cn:node');
    const opened = await openSession(t, own, { token: 'unused', attestation: { method: 'x509pop', certificate: pop.certificate, key: pop.key } });
    const { session, lines } = opened;
    const upstream = new SpireIntermediate(session);
    t.truthy(await upstream.sign(await asking(), patience()), lines.join('\n'));
    const id = /^SPIFFE ID\s*: (\S+)/m.exec(await own.cli('agent', 'list'))?.[1] ?? '';
    t.regex(id, /\/spire\/agent\/x509pop\//);
    await own.cli('agent', 'evict', '-spiffeID', id);
    await until('it has joined twice', () => lines.filter((line) => line.startsWith('upstream.joined')).length === 2, lines);
    t.truthy(await upstream.sign(await asking(), patience()));
  });
}

testIf(title('k8s_psat: joins by the token of its service account, once for each node, and is told what was refused'), async (t) => {
  const api = await fakeApi(t);
  await using own = await SpireServer.start({ psatApi: api.url });
  await own.cli('entry', 'create', '-node', '-spiffeID', own.id('/signet/nodes'), '-selector', 'k8s_psat:cluster:test');
  const tokenFile = join(scratch(t), 'psat');
  writeFileSync(tokenFile, 'a-token-of-somebody-else');
  const { session, lines } = await openSession(t, own, { token: 'unused', attestation: { method: 'k8s_psat', cluster: 'test', tokenFile } });
  t.regex(session.problem() ?? '', /cannot join by k8s_psat .*not authenticated.*What to do: compare cluster test, the service account/);
  writeFileSync(tokenFile, api.token);
  await until('it has joined', () => session.problem() === undefined, lines);
  t.truthy(await new SpireIntermediate(session).sign(await asking(), patience()));
  t.regex(await own.cli('agent', 'list'), /\/spire\/agent\/k8s_psat\/test\/uid-of-the-node/);
});

testIf(title('under a server that is itself under another CA, the chain has the CA of the server'), async (t) => {
  const directory = scratch(t);
  const { ca } = popMaterial(directory, 'ec');
  await using own = await SpireServer.start({ above: { certificate: ca, key: join(directory, 'pop-ca.key') } });
  const { session } = await openSession(t, own);
  const upstream = new SpireIntermediate(session);
  const keys = await newKeyPair('ec-p256');
  const request = { ...(await asking()), publicKey: keys.publicKey, csr: () => createCsr(keys, trustDomain, systemRandom) };
  const { chain, roots } = await upstream.sign(request, patience());
  t.is(chain.length, 2);
  t.deepEqual(roots, [new X509Certificate(readFileSync(ca)).raw]);
  t.true(upstream.issuer()?.equals(chain[1] ?? Buffer.alloc(0)));
  t.notThrows(() => judgeAnswer({ chain, roots }, { trustDomain, keys, latestEnd: Date.now() + 3_900_000, nameConstraint: 'none', acceptUnconstrainedCA: true }, Date.now()));
});

testIf(title('a tainted root asks for another node CA and SVID of the agent, and one that is revoked leaves the bundle'), async (t) => {
  await using own = await SpireServer.start({ agentTtl: '1h' });
  const { session, lines } = await openSession(t, own);
  const upstream = new SpireIntermediate(session);
  await upstream.sign(await asking(), patience());
  const [former] = upstream.roots();
  const authority = async (...words: string[]): Promise<string> => own.cli('localauthority', 'x509', ...words);
  const idOf = (text: string, name: string): string => ((JSON.parse(text) as Record<string, { authority_id: string }>)[name] ?? { authority_id: '' }).authority_id;
  const active = idOf(await authority('show', '-output', 'json'), 'active');
  const next = idOf(await authority('prepare', '-output', 'json'), 'prepared_authority');
  await until('both roots are known', () => upstream.roots().length === 2, lines);
  t.true(upstream.issuer()?.equals(former ?? Buffer.alloc(0)));
  await authority('activate', '-authorityID', next);
  await authority('taint', '-authorityID', active);
  await until('another issuer is told', () => upstream.issuer()?.equals(former ?? Buffer.alloc(0)) === false, lines);
  await until('the SVID of the agent is renewed', () => lines.some((line) => line.startsWith('upstream.renewed')), lines);
  const { chain } = await upstream.sign(await asking(), patience());
  t.true(new X509Certificate(chain[0] ?? Buffer.alloc(0)).verify(new X509Certificate(upstream.issuer() ?? Buffer.alloc(0)).publicKey));
  // The server takes some seconds to replace its own SVID; an operator waits for longer.
  const isServerMoved = (): Promise<boolean> => new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port: own.port, ALPNProtocols: ['h2'], rejectUnauthorized: false }, () => {
      const leaf = socket.getPeerX509Certificate();
      resolve(leaf?.verify(new X509Certificate(upstream.issuer() ?? Buffer.alloc(0)).publicKey) === true);
      socket.destroy();
    });
    socket.on('error', () => resolve(false));
  });
  for (const end = performance.now() + 25_000; !(await isServerMoved()) && performance.now() < end; ) await new Promise((resolve) => setTimeout(resolve, 200));
  await authority('revoke', '-authorityID', active);
  await until('it has left', () => upstream.roots().length === 1, lines);
  t.true(session.bundle.isRevoked(former ?? Buffer.alloc(0)));
  // The server does not believe what stands under it any more: our agent does not.
  await session.look();
  t.truthy(await upstream.sign(await asking(), patience()));
  t.is(lines.filter((line) => line.startsWith('upstream.renewed')).length, 1);
  t.deepEqual(lines.filter((line) => line.startsWith('failed')), []);
});

testIf(title('a server that was made anew is told, and believed again when its bundle is in the file'), async (t) => {
  await using own = await SpireServer.start();
  const { session, lines, tokenFile } = await openSession(t, own);
  await new SpireIntermediate(session).sign(await asking(), patience());
  await own.stop();
  await until('it is away', () => lines.some((line) => /cannot be reached: .*ECONNREFUSED/.test(line)), lines);
  await own.wipe();
  await own.start(`${own.bundleFile}.new`);
  await own.addDownstream();
  await until('it is not believed', () => lines.some((line) => /cannot be authenticated: .*write its bundle/.test(line)), lines);
  writeFileSync(own.bundleFile, await own.cli('bundle', 'show'));
  writeFileSync(tokenFile, await own.token());
  await until('it is well', () => session.problem() === undefined, lines);
  t.truthy(await new SpireIntermediate(session).sign(await asking(), patience()));
});
