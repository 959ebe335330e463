import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { WorkloadApiClient } from '../../src/client/workload-api-client.ts';
import { startAgentProcess, type AgentProcess } from './agent-process.ts';
import type { AttackName } from './hostile-attacker.ts';
import { supportFile, TestProcess } from './kernel-processes.ts';
import { OWN_ID } from './agent.ts';

/** Users who attack: one that the configuration does not know, and owners of an identity. */
export const STRANGER = 65_534;
export const OWNER = 65_533;
const GREEDY = [OWNER, 65_532, 65_531];

/** How long a condition may take to come true. */
const PATIENCE_MS = 20_000;
/** A caller who is not served after this has failed. */
const CALL_MS = 10_000;
/** Descriptors that come and go with the agent's own work. */
export const SPARE_DESCRIPTORS = 8;
/** Anonymous memory that the last round of an attack may leave more of than the one before: what V8 and malloc keep varies. */
const GROWTH_MIB = 12;
const MORE_ROUNDS = 5;

type Counts = Readonly<Record<string, number>>;

/** What an attacker was told. */
export type Facts = Readonly<Record<string, unknown>> & { readonly endings?: Counts; readonly resets?: Counts; readonly goaways?: Counts };

export interface RefusedLine {
  readonly event: string;
  readonly level: string;
  readonly reason?: string;
  readonly method?: string;
  readonly uid?: number;
  readonly err?: string;
}

export interface SiegeOptions {
  /** Who attacks, in this order. The last one goes on while memory grows. Default: a stranger, and an owner twice. */
  readonly uids?: readonly number[];
  readonly count?: number;
  /** Anonymous memory of the agent during the attack, above what it had before: at most this, in MiB. */
  readonly most: number;
  /** While the attack holds. */
  readonly check: (facts: Facts, uid: number) => unknown;
}

/** The agent as a real process, a caller who wants no more than an identity, and whoever attacks. */
export class Field {
  readonly agent: AgentProcess;
  readonly normal: NormalCaller;
  readonly #t: Pick<ExecutionContext, 'teardown'>;

  private constructor(t: Pick<ExecutionContext, 'teardown'>, agent: AgentProcess) {
    this.#t = t;
    this.agent = agent;
    this.normal = new NormalCaller(agent.socketPath);
  }

  static async open(t: Pick<ExecutionContext, 'teardown'>, limits: Readonly<Record<string, unknown>> = {}): Promise<Field> {
    // Other users must reach the socket.
    const directory = mkdtempSync(join(tmpdir(), 'signet-hostile-'));
    chmodSync(directory, 0o755);
    const entries = [
      { id: OWN_ID, selectors: ['unix:uid:0'] },
      ...GREEDY.map((uid) => ({ id: `spiffe://example.org/greedy/${uid}`, selectors: [`unix:uid:${uid}`] })),
    ];
    const agent = await startAgentProcess({ directory, config: { entries, limits } });
    t.teardown(async () => {
      await agent.stop();
      rmSync(directory, { recursive: true, force: true });
    });
    const field = new Field(t, agent);
    t.teardown(() => field.normal.stop());
    await field.normal.serves();
    return field;
  }

  /** Open descriptors of the agent. */
  get descriptors(): number {
    return readdirSync(`/proc/${this.agent.pid}/fd`).length;
  }

  /** Anonymous memory of the agent, in MiB. */
  get anonymous(): number {
    const [, kib = '0'] = /RssAnon:\s+(\d+) kB/.exec(readFileSync(`/proc/${this.agent.pid}/status`, 'utf8')) ?? [];
    return Number(kib) / 1024;
  }

  /** What the agent has written, line by line. */
  get lines(): RefusedLine[] {
    return this.agent.log().split('\n').filter((line) => line.startsWith('{') && line.endsWith('}')).map((line) => JSON.parse(line) as RefusedLine);
  }

  /** Resolves once the log has such a refusal. */
  refused(reason: string, uid: number, err = /^/): Promise<void> {
    const refusals = (): RefusedLine[] => this.lines.filter(({ event }) => event === 'refused');
    const seen = (): string => [...new Set(refusals().map((line) => `${line.reason} (${line.uid})`))].join(', ');
    return eventually(
      () => refusals().some((line) => line.reason === reason && line.uid === uid && err.test(line.err ?? '')),
      () => `a refusal for ${reason} of user ${uid}; refused were ${seen()}`,
    );
  }

  /** An attack that holds, with what it was told. */
  async attack(name: AttackName, uid: number, count?: number): Promise<{ facts: Facts; process: TestProcess }> {
    const args = [supportFile('hostile-attacker.ts'), name, this.agent.socketPath, ...(count === undefined ? [] : [String(count)])];
    const attacker = new TestProcess(this.#t, process.execPath, args, { uid, gid: uid });
    return { facts: JSON.parse(await attacker.line()) as Facts, process: attacker };
  }

  /** Attacks again and again; every time the normal caller is served meanwhile, and the agent is afterwards what it was before. */
  async siege(t: ExecutionContext, name: AttackName, options: SiegeOptions): Promise<void> {
    const { descriptors, anonymous } = this;
    const uids = options.uids ?? [STRANGER, OWNER, OWNER];
    const after: number[] = [];
    let most = 0;
    const grew = (): number => (after.at(-1) ?? 0) - (after.at(-2) ?? 0);
    // A heap that is warming up stops growing; a leak does not.
    for (let round = 0; round < uids.length || (grew() > GROWTH_MIB && round < uids.length + MORE_ROUNDS); round += 1) {
      most = Math.max(most, await this.#round(t, name, uids[round] ?? uids.at(-1) ?? STRANGER, options, descriptors));
      after.push(this.anonymous);
    }
    t.log(`memory: ${[anonymous, most, ...after].map(Math.round).join(', ')} MiB (before, most, after each round)`);
    t.true(most - anonymous <= options.most, `the attack cost ${Math.round(most - anonymous)} MiB, at most ${options.most} are allowed`);
    t.true(grew() <= GROWTH_MIB, `memory grows from round to round: ${after.map(Math.round).join(', ')} MiB`);
    this.isUnharmed(t);
  }

  /** Resolves with the memory that was in use while the attack held. */
  async #round(t: ExecutionContext, name: AttackName, uid: number, options: SiegeOptions, descriptors: number): Promise<number> {
    const { facts, process } = await this.attack(name, uid, options.count);
    try {
      await this.normal.serves();
      const { anonymous } = this;
      await options.check(facts, uid);
      return anonymous;
    } catch (error) {
      t.log(JSON.stringify(facts).slice(0, 1_000));
      throw error;
    } finally {
      // Killed, as it were in the middle of a word.
      await process.stop();
      await eventually(() => this.descriptors <= descriptors + SPARE_DESCRIPTORS, () => `${this.descriptors} descriptors, before ${descriptors}`);
    }
  }

  /** The same process still, which has found no mistake in itself and has served everyone. */
  isUnharmed(t: ExecutionContext): void {
    t.deepEqual(this.normal.failures, []);
    t.deepEqual(this.lines.filter((line) => line.event === 'agent.mistake' || line.level === 'error'), []);
    t.notThrows(() => process.kill(this.agent.pid, 0), 'the agent lives');
  }
}

/** One field for all tests of a file, where the tests are run at all. */
export function fieldForAll(limits: Readonly<Record<string, unknown>> = {}): () => Field {
  const stops: (() => unknown)[] = [];
  let field: Field | undefined;
  test.serial.before(async () => {
    if (process.getuid?.() === 0) field = await Field.open({ teardown: (stop) => void stops.unshift(stop) }, limits);
  });
  test.serial.after.always(async () => {
    for (const stop of stops) await stop();
  });
  return () => {
    if (field === undefined) throw new Error('the agent was not started');
    return field;
  };
}

export function answered(facts: Facts, ending: string): number {
  return facts.endings?.[ending] ?? 0;
}

/** Takes an X.509-SVID and a JWT-SVID over a new connection, again and again. */
class NormalCaller {
  readonly failures: string[] = [];
  readonly #socketPath: string;
  readonly #loop: Promise<void>;
  #served = 0;
  #stopped = false;

  constructor(socketPath: string) {
    this.#socketPath = socketPath;
    this.#loop = this.#run();
  }

  /** Resolves when two more rounds, begun after this call, have been served. */
  async serves(): Promise<void> {
    const { length } = this.failures;
    const enough = this.#served + 3;
    await eventually(() => this.#served >= enough || this.failures.length > length, () => `the normal caller was served ${this.#served} times, ${enough} were expected`, 60_000);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#loop;
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      await this.#round();
      await pause(20);
    }
  }

  async #round(): Promise<void> {
    for (const deadline = performance.now() + CALL_MS; ; await pause(20)) {
      const client = new WorkloadApiClient({ endpoint: `unix://${this.#socketPath}` });
      try {
        const x509 = await client.fetchX509();
        const jwt = await client.fetchJwtSvids({ audience: ['normal'] });
        if (x509.identities.length !== 1 || jwt.length !== 1) throw new Error('an identity is missing');
        this.#served += 1;
        return;
      } catch (error) {
        if (this.#stopped) return;
        // The kernel's queue of connections is one for all, and it was full: every gRPC client tries again then.
        if (String(error).includes('connect EAGAIN') && performance.now() < deadline) continue;
        this.failures.push(String(error));
        return;
      } finally {
        await client.close();
      }
    }
  }
}

export async function eventually(holds: () => boolean, what: () => string, ms = PATIENCE_MS): Promise<void> {
  const deadline = performance.now() + ms;
  while (!holds()) {
    if (performance.now() > deadline) throw new Error(`did not come true within ${ms} ms: ${what()}`);
    await pause(20);
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

export function sumOf(counts: Readonly<Record<string, number>> | undefined): number {
  return Object.values(counts ?? {}).reduce((sum, count) => sum + count, 0);
}
