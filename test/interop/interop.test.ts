import test, { type ExecutionContext } from 'ava';
import { toolchainMissing } from '../support/toolchains.ts';
import { startTestAgent, type TestAgent } from './agent.ts';
import { builtProgram } from './build.ts';
import { assertBundles, assertJwt, assertX509, type BundlesLine, type JwtLine, type X509Line } from './contract.ts';
import { Program, runProgram, stopPrograms } from './program.ts';
import { type Argv, LANGUAGE_ROWS, type Row, SPIRE_AGENT_CLI } from './rows.ts';
import { slots } from './slots.ts';
import { type CliContext, CLI_PROOFS } from './spire-agent-cli.ts';

// Every proof may have to wait for all builds; the programs have their own, short bounds.
const PROOF_TIMEOUT_MS = 30 * 60_000;
const AUDIENCE = 'interop-audience';
const STRANGER = '/ns/default/sa/somebody-else';
// Go, Python, Rust, Java.
const OTHER_ID_REFUSED = /unexpected ID|certificate verify failed|not authorized|is not accepted/;

// Rotation is waiting, not work: only the other proofs share the cores.
const proofSlot = slots(3);
let agent: Promise<TestAgent> | undefined;

function theAgent(): Promise<TestAgent> {
  agent ??= startTestAgent();
  return agent;
}

test.after.always('programs and agent are stopped', async () => {
  await stopPrograms();
  // A start that failed has failed the proofs already.
  const started = await agent?.catch(() => undefined);
  await started?.stop();
});

/** A row's program, ready to run against the agent. */
interface Client {
  readonly agent: TestAgent;
  readonly argv: Argv;
  readonly env: Readonly<Record<string, string>>;
}

async function clientOf(row: Row): Promise<Client> {
  const argv = await builtProgram(row);
  const running = await theAgent();
  return { agent: running, argv, env: { SPIFFE_ENDPOINT_SOCKET: `unix://${running.socketPath}` } };
}

/** Declares one proof; it is skipped, and says why, only when a toolchain is missing. */
function proof(rows: readonly Row[], claim: string, prove: (t: ExecutionContext, clients: Client[]) => Promise<void>): void {
  const title = `${rows.map((row) => row.name).join(' and ')}: ${claim}`;
  const missing = rows.map((row) => toolchainMissing(row.toolchain)).find((reason) => reason !== undefined);
  if (missing !== undefined) {
    test.skip(`${title} (skipped: ${missing})`, (t) => prove(t, []));
    return;
  }
  test(title, async (t) => {
    t.timeout(PROOF_TIMEOUT_MS);
    await prove(t, await Promise.all(rows.map(clientOf)));
  });
}

async function lastLine(t: ExecutionContext, client: Client, args: readonly string[]): Promise<unknown> {
  const outcome = await proofSlot(() => runProgram(client.argv, args, client.env));
  const line = outcome.lines.at(-1) ?? '';
  t.is(outcome.code, 0, `${line}\n${outcome.stderr}`);
  return JSON.parse(line);
}

for (const row of LANGUAGE_ROWS) {
  proof([row], 'the X.509 context has an identity, its chain and its bundle', async (t, [client]) => {
    const line = (await lastLine(t, client!, ['x509'])) as X509Line;
    assertX509(t, line, client!.agent.id, row.keepsHint ? client!.agent.hint : null);
  });

  proof([row], 'rotation is seen by a running source', async (t, [client]) => {
    const outcome = await runProgram(client!.argv, ['rotate'], client!.env);
    t.is(outcome.code, 0, `${outcome.lines.join('\n')}\n${outcome.stderr}`);
    const serials = outcome.lines.map((line) => (JSON.parse(line) as { serial: string }).serial);
    t.is(new Set(serials).size, 2);
  });

  proof([row], 'a JWT-SVID is valid locally and remotely, and for no other audience', async (t, [client]) => {
    assertJwt(t, (await lastLine(t, client!, ['jwt', AUDIENCE])) as JwtLine, client!.agent.id, AUDIENCE);
  });

  proof([row], 'the X.509 and JWT bundles of the trust domain are there', async (t, [client]) => {
    assertBundles(t, (await lastLine(t, client!, ['bundles'])) as BundlesLine, client!.agent.id);
  });
}

for (const server of LANGUAGE_ROWS) {
  for (const dialler of LANGUAGE_ROWS.filter((row) => row !== server)) {
    const claim = 'the first serves and the second dials mutual TLS, and only the expected SPIFFE ID will do';
    proof([server, dialler], claim, async (t, [serving, dialling]) => {
      await proofSlot(() => mutualTls(t, serving!, dialling!));
    });
  }
}

async function mutualTls(t: ExecutionContext, serving: Client, dialling: Client): Promise<void> {
  const server = new Program(serving.argv, ['serve'], serving.env);
  const { id } = serving.agent;
  const first = (await server.json()) as { port?: number };
  t.is(typeof first.port, 'number', JSON.stringify(first));

  const stranger = new URL(STRANGER, id).href;
  const refused = await runProgram(dialling.argv, ['dial', String(first.port), stranger], dialling.env);
  t.is(refused.code, 1, 'the dialler refuses a server with another ID');
  t.regex(refused.lines.at(-1) ?? '', OTHER_ID_REFUSED, 'because of the ID, not of anything else');
  t.deepEqual(Object.keys((await server.json()) as object), ['refused']);

  const accepted = await runProgram(dialling.argv, ['dial', String(first.port), id], dialling.env);
  t.is(accepted.code, 0, `${accepted.lines.join('\n')}\n${accepted.stderr}`);
  t.deepEqual(JSON.parse(accepted.lines.at(-1) ?? ''), { peer: id, seen: id });
  t.deepEqual(await server.json(), { peer: id });
  t.is(await server.end(), 0, server.stderr);
}

for (const [claim, prove] of CLI_PROOFS) {
  proof([SPIRE_AGENT_CLI], claim, async (t, [client]) => {
    const context: CliContext = { agent: client!.agent, argv: client!.argv };
    await prove(t, context);
  });
}
