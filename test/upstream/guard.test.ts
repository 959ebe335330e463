import test from 'ava';
import { SignetError } from '../../src/errors.ts';
import { Guard, type GuardOptions, type Work } from '../../src/upstream/guard.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { evenRandom, settle } from '../support/signers.ts';

/** A failure of the upstream; every other error is its answer. */
class Fault extends Error {
  readonly retryAfterMs: number | undefined;

  constructor(message: string, retryAfterMs?: number) {
    super(message);
    this.retryAfterMs = retryAfterMs;
  }
}

interface Call {
  readonly name: string;
  readonly signal: AbortSignal;
  answer(): void;
  fail(error: Error): void;
}

function setUp(options: Partial<GuardOptions> = {}) {
  const clock = new FakeClock();
  const guard = new Guard(options, { clock, random: evenRandom, faultOf: (error) => (error instanceof Fault ? { retryAfterMs: error.retryAfterMs } : undefined) });
  const calls: Call[] = [];
  const { signal: never } = new AbortController();
  const ask = (name: string, more: Partial<Work<string>> = {}, signal = never): Promise<string> =>
    guard.run(
      {
        do: (inner) =>
          new Promise((resolve, reject) => {
            calls.push({ name, signal: inner, answer: () => resolve(name), fail: reject });
          }),
        ...more,
      },
      signal,
    );
  /** Asks, and notes how it ended. */
  const asked = (name: string, more: Partial<Work<string>> = {}, signal = never): { outcome: string } => {
    const noted = { outcome: 'waits' };
    void ask(name, more, signal).then(
      () => (noted.outcome = 'answered'),
      (error: Error) => (noted.outcome = error.message),
    );
    return noted;
  };
  const names = (): string[] => calls.map(({ name }) => name);
  return { clock, guard, calls, ask, asked, names };
}

/** Opens the breaker with one failed request, which goes on waiting. */
async function opened(options: Partial<GuardOptions> = {}) {
  const all = setUp({ failures: 1, ...options });
  const first = all.asked('first');
  await settle();
  all.calls[0]?.fail(new Fault('it is away'));
  await settle();
  return { ...all, first };
}

test('so many are under way at once and no more', async (t) => {
  const { calls, asked } = setUp({ concurrency: 2 });
  for (const name of ['a', 'b', 'c']) asked(name);
  await settle();
  t.is(calls.length, 2);
  calls[0]?.answer();
  await settle();
  t.is(calls.length, 3);
});

test('after a burst so many go out each second', async (t) => {
  const { clock, calls, asked } = setUp({ concurrency: 100, burst: 3, perSecond: 2 });
  for (let count = 0; count < 10; count += 1) asked('x');
  await settle();
  const counts = [calls.length];
  for (let second = 0; second < 3; second += 1) {
    clock.advance(1_000);
    await settle();
    counts.push(calls.length);
  }
  t.deepEqual(counts, [3, 5, 7, 9]);
});

test('the soonest end goes first; who has nothing yet comes before all that have more than ten seconds', async (t) => {
  const { clock, calls, asked, names } = setUp({ concurrency: 1 });
  asked('under way');
  asked('an hour', { heldUntil: clock.now() + 3_600_000 });
  asked('a minute', { heldUntil: clock.now() + 60_000 });
  asked('nothing');
  asked('a second', { heldUntil: clock.now() + 1_000 });
  asked('nothing either');
  for (let count = 0; count < 6; count += 1) {
    await settle();
    calls.at(-1)?.answer();
  }
  t.deepEqual(names(), ['under way', 'a second', 'nothing', 'nothing either', 'a minute', 'an hour']);
});

test('one key is asked for once, and all who ask get the outcome', async (t) => {
  const { calls, ask } = setUp();
  const both = [ask('a', { key: 'k' }), ask('a', { key: 'k' })];
  await settle();
  t.is(calls.length, 1);
  calls[0]?.answer();
  t.deepEqual(await Promise.all(both), ['a', 'a']);
  void ask('a', { key: 'k' });
  await settle();
  t.is(calls.length, 2, 'an outcome is not kept');
});

test('one of those who share may leave; when the last one leaves the request is given up', async (t) => {
  const { calls, asked } = setUp();
  const [one, two] = [new AbortController(), new AbortController()];
  const first = asked('a', { key: 'k' }, one.signal);
  const second = asked('a', { key: 'k' }, two.signal);
  await settle();
  one.abort(new Error('left'));
  await settle();
  t.deepEqual([first.outcome, second.outcome, calls[0]?.signal.aborted], ['left', 'waits', false]);
  two.abort(new Error('left too'));
  await settle();
  t.deepEqual([second.outcome, calls[0]?.signal.aborted], ['left too', true]);
});

test('a no to one request goes to who asked, and is no failure of the upstream', async (t) => {
  const { guard, calls, asked } = setUp({ failures: 1 });
  const refused = asked('a');
  await settle();
  calls[0]?.fail(new Error('this name is not allowed'));
  await settle();
  t.is(refused.outcome, 'this name is not allowed');
  t.like(guard.state(), { breaker: 'closed', problem: undefined, waiting: 0, running: 0 });
});

test('a failure of the upstream is waited out: the request is tried again and succeeds', async (t) => {
  const { clock, calls, guard, first } = await opened();
  t.is(first.outcome, 'waits');
  t.like(guard.state(), { breaker: 'open', problem: 'it is away' });
  clock.advance(1_000);
  await settle();
  t.is(calls.length, 2);
  calls[1]?.answer();
  await settle();
  t.is(first.outcome, 'answered');
  t.like(guard.state(), { breaker: 'closed', problem: undefined });
});

test('so many failures in a row open it; an answer between them starts the count again', async (t) => {
  const { clock, guard, calls, asked } = setUp({ failures: 3, concurrency: 1 });
  const outcomes = ['fails', 'fails', 'answers', 'fails', 'fails', 'fails'];
  const states: string[] = [];
  for (const outcome of outcomes) {
    asked(outcome);
    await settle();
    if (outcome === 'answers') calls.at(-1)?.answer();
    else calls.at(-1)?.fail(new Fault('away'));
    await settle();
    states.push(guard.state().breaker);
    if (outcome === 'fails') clock.advance(1);
  }
  t.deepEqual(states, ['closed', 'closed', 'closed', 'closed', 'closed', 'open']);
});

test('while it is open one request at a time goes out, at most one a second, and it closes with the first answer', async (t) => {
  const { clock, guard, calls, asked } = await opened();
  const others = Array.from({ length: 20 }, (_, index) => asked(`${index}`));
  await settle();
  t.is(calls.length, 1);
  for (let second = 1; second <= 5; second += 1) {
    clock.advance(1_000);
    await settle();
    t.is(calls.length, 1 + second);
    t.is(guard.state().breaker, 'half_open');
    clock.advance(500);
    await settle();
    t.is(calls.length, 1 + second, 'the probe is under way');
    calls.at(-1)?.fail(new Fault('still away'));
    await settle();
  }
  clock.advance(1_000);
  await settle();
  calls.at(-1)?.answer();
  for (let count = 7; count < 40; count += 1) {
    await settle();
    calls[count]?.answer();
  }
  t.true(others.every(({ outcome }) => outcome === 'answered'));
});

test('a request that the upstream chokes on does not keep the others from finding it back', async (t) => {
  const { clock, calls, asked } = await opened();
  const other = asked('other', { heldUntil: clock.now() + 3_600_000 });
  clock.advance(1_000);
  await settle();
  t.is(calls[1]?.name, 'other');
  calls[1]?.answer();
  await settle();
  t.is(other.outcome, 'answered');
});

test('when nobody waits any more the last request is the probe, and its answer is told', async (t) => {
  const { clock, guard, calls, first } = await opened({ waitMs: 800 });
  let recovered = 0;
  guard.onRecover(() => void (recovered += 1));
  clock.advance(800);
  await settle();
  t.is(first.outcome, 'it is away');
  clock.advance(200);
  await settle();
  t.is(calls.length, 2);
  calls[1]?.answer();
  await settle();
  t.is(recovered, 1);
  t.like(guard.state(), { breaker: 'closed', problem: undefined });
});

test('an upstream that has been away for longer than somebody would wait is not waited for', async (t) => {
  const { clock, asked } = await opened({ probeMs: 4_000 });
  clock.advance(2_000);
  const [short, long] = [asked('short', { waitMs: 1_000 }), asked('long', { waitMs: 60_000 })];
  await settle();
  t.deepEqual([short.outcome, long.outcome], ['it is away', 'waits']);
});

test('after the wait for a probe a newcomer is let in, although it would not wait so long', async (t) => {
  const { clock, guard, calls, asked } = await opened({ waitMs: 100, probeMs: 2_000 });
  clock.advance(1_000);
  const early = asked('early', { waitMs: 100 });
  guard.wake();
  await settle();
  calls[1]?.answer();
  await settle();
  const late = asked('late', { waitMs: 100 });
  await settle();
  calls[2]?.answer();
  await settle();
  t.deepEqual([early.outcome, late.outcome], ['it is away', 'answered']);
});

test('Retry-After is honoured at once, before the probes and before any sign of a return', async (t) => {
  const { clock, guard, calls, asked } = setUp({ failures: 3 });
  const request = asked('a');
  await settle();
  calls[0]?.fail(new Fault('too many requests', 10_000));
  await settle();
  t.is(guard.state().breaker, 'open');
  asked('b');
  guard.wake();
  clock.advance(9_999);
  await settle();
  t.is(calls.length, 1);
  clock.advance(2_501);
  await settle();
  t.is(calls.length, 2, 'it waits up to a quarter longer');
  calls[1]?.answer();
  for (let count = 2; count < 4; count += 1) {
    await settle();
    calls[count]?.answer();
  }
  await settle();
  t.is(request.outcome, 'answered');
});

test('a Retry-After of a year is cut', async (t) => {
  const { clock, calls, asked } = setUp({ longestPauseMs: 5_000 });
  asked('a');
  await settle();
  calls[0]?.fail(new Fault('too many requests', 31_536_000_000));
  await settle();
  clock.advance(6_250);
  await settle();
  t.is(calls.length, 2);
});

test('a sign that the upstream is back brings the probe forward', async (t) => {
  const { guard, calls } = await opened();
  guard.wake();
  await settle();
  t.is(calls.length, 2);
});

test('an attempt without an answer is a failure, its signal is aborted, and another one follows', async (t) => {
  const { clock, guard, calls, asked } = setUp({ attemptMs: 5_000, failures: 1 });
  const request = asked('a');
  await settle();
  clock.advance(5_000);
  await settle();
  t.true(calls[0]?.signal.aborted);
  t.is(request.outcome, 'waits');
  t.like(guard.state(), { breaker: 'open', problem: 'the upstream has not answered within 5 s' });
  clock.advance(1_000);
  await settle();
  calls[1]?.answer();
  await settle();
  t.is(request.outcome, 'answered');
});

test('above the bound the one that can wait longest is refused, be it the newcomer', async (t) => {
  const { clock, asked } = setUp({ concurrency: 1, waiting: 2 });
  asked('under way');
  const hour = asked('hour', { heldUntil: clock.now() + 3_600_000 });
  const minute = asked('minute', { heldUntil: clock.now() + 60_000 });
  const second = asked('second', { heldUntil: clock.now() + 1_000 });
  const day = asked('day', { heldUntil: clock.now() + 86_400_000 });
  await settle();
  t.deepEqual([minute.outcome, second.outcome], ['waits', 'waits']);
  for (const { outcome } of [hour, day]) t.is(outcome, '2 requests wait for the upstream already');
});

test('whose time is over hears the last failure, or that it was not even tried', async (t) => {
  const { clock, first, asked } = await opened({ waitMs: 120_000, probeMs: 1_000_000 });
  const untried = asked('untried');
  clock.advance(120_000);
  await settle();
  t.is(first.outcome, 'it is away');
  t.is(untried.outcome, 'it is away');
  const slow = setUp({ concurrency: 1, waitMs: 1_000 });
  slow.asked('under way');
  const waiting = slow.asked('waits');
  slow.clock.advance(1_000);
  await settle();
  t.regex(waiting.outcome, /slower than it is asked/);
});

test('who leaves while it waits is never asked for', async (t) => {
  const { calls, asked, names } = setUp({ concurrency: 1 });
  const leaving = new AbortController();
  asked('under way');
  asked('leaves', {}, leaving.signal);
  asked('stays');
  leaving.abort(new Error('left'));
  await settle();
  calls[0]?.answer();
  await settle();
  t.deepEqual(names(), ['under way', 'stays']);
});

test('when it is closed everybody hears so, and nothing is asked or planned any more', async (t) => {
  const { clock, guard, calls, asked, ask } = setUp({ concurrency: 1 });
  const all = [asked('a'), asked('b')];
  await settle();
  guard.close();
  await settle();
  t.deepEqual(all.map(({ outcome }) => outcome), ['the agent stops', 'the agent stops']);
  t.true(calls[0]?.signal.aborted);
  t.is(clock.pending, 0);
  await t.throwsAsync(ask('c'), { instanceOf: SignetError, code: 'stopped' });
});

test('a start of 250 identities against a CA that takes a second, fails every seventh time and is away for 20 seconds loses none', async (t) => {
  const clock = new FakeClock();
  const guard = new Guard({ concurrency: 8, perSecond: 50, burst: 50, failures: 3, attemptMs: 5_000 }, { clock, random: evenRandom, faultOf: () => ({ retryAfterMs: undefined }) });
  let [asked, underWay, most, isAway] = [0, 0, 0, false];
  const slowCa = async (): Promise<number> => {
    asked += 1;
    const number = asked;
    underWay += 1;
    most = Math.max(most, underWay);
    await new Promise<void>((resolve) => void clock.after(1_000, resolve));
    underWay -= 1;
    if (isAway || number % 7 === 0) throw new Fault('500');
    return number;
  };
  let answered = 0;
  const { signal } = new AbortController();
  const storm = Array.from({ length: 250 }, () => guard.run({ do: slowCa }, signal).then(() => (answered += 1)));
  let seconds = 0;
  for (; answered < 250 && seconds < 200; seconds += 1) {
    isAway = seconds >= 10 && seconds < 30;
    clock.advance(1_000);
    await settle();
  }
  t.is(answered, 250, `after ${seconds} s`);
  await Promise.all(storm);
  t.true(most <= 8, `${most} at once`);
  t.true(asked < 350, `${asked} requests`);
  t.like(guard.state(), { waiting: 0, running: 0, breaker: 'closed' });
});

test('when the last one who waits has given up, the return is found out all the same, and told', async (t) => {
  const leaving = new AbortController();
  for (const [how, leave] of [
    ['its time is over between two attempts', (clock: FakeClock) => clock.advance(300)],
    ['it has left between two attempts', () => leaving.abort(new Error('left'))],
  ] as const) {
    const { clock, guard, calls, asked } = setUp({ failures: 3, waitMs: 300 });
    let recovered = 0;
    guard.onRecover(() => void (recovered += 1));
    asked('a', {}, leaving.signal);
    await settle();
    calls[0]?.fail(new Fault('away'));
    await settle();
    leave(clock);
    await settle();
    t.like(guard.state(), { breaker: 'open', problem: 'away', waiting: 0 }, how);
    clock.advance(1_000);
    await settle();
    calls[1]?.answer();
    await settle();
    t.like(guard.state(), { breaker: 'closed', problem: undefined }, how);
    t.is(recovered, 1, how);
  }
});

test('one that fails for good while others succeed does not hold them up when it gives up', async (t) => {
  const { clock, guard, calls, asked } = setUp({ failures: 3, waitMs: 300 });
  asked('bad');
  await settle();
  calls[0]?.fail(new Fault('500'));
  asked('good');
  await settle();
  calls[1]?.answer();
  await settle();
  clock.advance(300);
  await settle();
  t.like(guard.state(), { breaker: 'closed', problem: undefined });
});
