import test from 'ava';
import type { Lease, TokenSource } from '../../src/upstream/vault/auth.ts';
import { TokenKeeper } from '../../src/upstream/vault/token.ts';
import { VaultError } from '../../src/upstream/vault/vault-error.ts';
import { FakeClock } from '../support/fake-clock.ts';

const HOUR = 3_600_000;
const ALWAYS = new AbortController().signal;

/** Logins that are counted; each gives another token. */
class ScriptedSource implements TokenSource {
  logins = 0;
  renewals = 0;
  lease: Omit<Lease, 'token'> = { lifeMs: HOUR, isRenewable: true };
  renewedMs = HOUR;
  failure: Error | undefined;
  gate: Promise<void> = Promise.resolve();

  async login(): Promise<Lease> {
    this.logins += 1;
    const token = `token-${this.logins}`;
    await this.gate;
    if (this.failure !== undefined) throw this.failure;
    return { token, ...this.lease };
  }

  async renew(token: string): Promise<Lease> {
    this.renewals += 1;
    if (this.failure !== undefined) throw this.failure;
    return { token, lifeMs: this.renewedMs, isRenewable: true };
  }
}

function keeper(source: ScriptedSource, clock: FakeClock): { keeper: TokenKeeper; failures: unknown[] } {
  const failures: unknown[] = [];
  return { failures, keeper: new TokenKeeper({ clock, source, onSuccess: () => undefined, onFailure: (error) => void failures.push(error) }) };
}

/** Lets everything that needs no time happen. */
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('it logs in once for all who ask, and not before', async (t) => {
  const [source, clock] = [new ScriptedSource(), new FakeClock()];
  const { keeper: tokens } = keeper(source, clock);
  t.is(source.logins, 0);
  t.deepEqual(await Promise.all([tokens.get(ALWAYS), tokens.get(ALWAYS), tokens.get(ALWAYS)]), ['token-1', 'token-1', 'token-1']);
  t.is(source.logins, 1);
});

test('a token is renewed at two thirds of its life, again and again', async (t) => {
  const [source, clock] = [new ScriptedSource(), new FakeClock()];
  const { keeper: tokens } = keeper(source, clock);
  await tokens.get(ALWAYS);
  clock.advance((2 * HOUR) / 3 - 1);
  t.is(source.renewals, 0);
  for (let renewals = 1; renewals <= 3; renewals += 1) {
    clock.advance((2 * HOUR) / 3);
    await settle();
    t.is(source.renewals, renewals);
  }
  t.is(source.logins, 1);
  t.is(await tokens.get(ALWAYS), 'token-1');
});

test('when a renewal brings less than half, a login follows at once', async (t) => {
  const [source, clock] = [new ScriptedSource(), new FakeClock()];
  const { keeper: tokens } = keeper(source, clock);
  await tokens.get(ALWAYS);
  source.renewedMs = HOUR / 3;
  clock.advance((2 * HOUR) / 3);
  await settle();
  t.is(source.logins, 2);
  t.is(await tokens.get(ALWAYS), 'token-2');
});

test('a token that cannot be renewed is replaced at two thirds of its life', async (t) => {
  const [source, clock] = [new ScriptedSource(), new FakeClock()];
  source.lease = { lifeMs: HOUR, isRenewable: false };
  const { keeper: tokens } = keeper(source, clock);
  await tokens.get(ALWAYS);
  clock.advance((2 * HOUR) / 3);
  await settle();
  t.is(await tokens.get(ALWAYS), 'token-2');
  t.is(source.renewals, 0);
});

test('while renewing fails the token goes on to its end; then its error is what callers get, and a nudge tries again', async (t) => {
  const [source, clock] = [new ScriptedSource(), new FakeClock()];
  const { keeper: tokens, failures } = keeper(source, clock);
  await tokens.get(ALWAYS);
  source.failure = new VaultError('sealed', 'Vault is sealed');
  clock.advance((2 * HOUR) / 3);
  await settle();
  t.is(failures.length, 1);
  t.is(await tokens.get(ALWAYS), 'token-1');
  clock.advance(HOUR / 3);
  await t.throwsAsync(tokens.get(ALWAYS), { message: 'Vault is sealed' });
  const { logins } = source;
  // Not one login each.
  await Promise.all(Array.from({ length: 50 }, () => t.throwsAsync(tokens.get(ALWAYS), { message: 'Vault is sealed' })));
  t.is(source.logins, logins);
  source.failure = undefined;
  tokens.nudge();
  await settle();
  t.is(await tokens.get(ALWAYS), `token-${logins + 1}`);
});

test('a token that Vault does not know is replaced once, however many were refused with it', async (t) => {
  const [source, clock] = [new ScriptedSource(), new FakeClock()];
  const { keeper: tokens } = keeper(source, clock);
  const token = await tokens.get(ALWAYS);
  const others = await Promise.all(Array.from({ length: 20 }, () => tokens.replace(token, true, ALWAYS)));
  t.deepEqual(new Set(others), new Set(['token-2']));
  t.is(source.logins, 2);
});

test('a token that may not do something is replaced seldom: first when it is not new, then ever more seldom', async (t) => {
  const [source, clock] = [new ScriptedSource(), new FakeClock()];
  const { keeper: tokens } = keeper(source, clock);
  let token = await tokens.get(ALWAYS);
  t.is(await tokens.replace(token, false, ALWAYS), undefined);
  const ages: number[] = [];
  for (let second = 0; second < 600; second += 1) {
    clock.advance(1_000);
    const other = await tokens.replace(token, false, ALWAYS);
    if (other !== undefined) {
      ages.push(second);
      token = other;
    }
  }
  t.true(ages.length >= 5 && ages.length <= 14, `${ages.join(' ')}`);
  tokens.trust();
  clock.advance(5_000);
  t.is(await tokens.replace(token, false, ALWAYS), `token-${source.logins}`);
});

test('a caller that gives up does not end the login for others', async (t) => {
  const [source, clock] = [new ScriptedSource(), new FakeClock()];
  const { keeper: tokens } = keeper(source, clock);
  const { promise, resolve } = Promise.withResolvers<void>();
  source.gate = promise;
  const giving = new AbortController();
  const [one, two] = [tokens.get(giving.signal), tokens.get(ALWAYS)];
  giving.abort(new Error('enough'));
  await t.throwsAsync(one, { message: 'enough' });
  resolve();
  t.is(await two, 'token-1');
});

test('a life longer than timers can count is renewed earlier', async (t) => {
  const [source, clock] = [new ScriptedSource(), new FakeClock()];
  source.lease = { lifeMs: 400 * 24 * HOUR, isRenewable: true };
  source.renewedMs = 400 * 24 * HOUR;
  const { keeper: tokens } = keeper(source, clock);
  await tokens.get(ALWAYS);
  clock.advance(10 * 24 * HOUR);
  await settle();
  t.is(source.renewals, 1);
});

test('nothing is asked after the end', async (t) => {
  const [source, clock] = [new ScriptedSource(), new FakeClock()];
  const { keeper: tokens } = keeper(source, clock);
  await tokens.get(ALWAYS);
  tokens.close();
  clock.advance(10 * HOUR);
  await settle();
  t.is(clock.pending, 0);
  t.deepEqual([source.logins, source.renewals], [1, 0]);
});
