import test, { type ExecutionContext } from 'ava';
import { identifyCaller, releaseCaller, type Caller } from '../../src/attestation/caller.ts';
import { LivenessWatch } from '../../src/attestation/liveness.ts';
import { SystemClock, type Alarm, type Clock } from '../../src/clock.ts';
import { SignetError } from '../../src/errors.ts';
import { descriptorOf, openKernel } from '../../src/kernel.ts';
import { TestListener, startPeer, until, type TestProcess } from '../support/kernel-processes.ts';

const kernel = openKernel();

/** Rings when told to. */
class ManualClock implements Clock {
  readonly alarms = new Map<Alarm, { readonly ms: number; readonly wake: () => void }>();

  now(): number {
    return 0;
  }

  monotonic(): number {
    return 0;
  }

  at(): Alarm {
    throw new Error('not used');
  }

  onStep(): () => void {
    throw new Error('not used');
  }

  after(ms: number, wake: () => void): Alarm {
    const alarm: Alarm = { cancel: () => void this.alarms.delete(alarm) };
    this.alarms.set(alarm, { ms, wake });
    return alarm;
  }

  ring(): void {
    const due = [...this.alarms.values()];
    this.alarms.clear();
    for (const { wake } of due) wake();
  }
}

async function connect(t: ExecutionContext, listener: TestListener): Promise<{ peer: TestProcess; caller: Caller }> {
  const peer = await startPeer(t, { socket: listener.path });
  const caller = identifyCaller(kernel, descriptorOf(await listener.next()), 1);
  t.teardown(() => releaseCaller(kernel, caller));
  return { peer, caller };
}

test.serial('the exit of a caller ends its watch on the system clock, though its socket lives on', async (t) => {
  const watch = new LivenessWatch(kernel, new SystemClock(), 5);
  t.teardown(() => watch.close());
  const { peer, caller } = await connect(t, await TestListener.open(t));
  let exits = 0;
  watch.watch(caller, () => exits++);
  await peer.ask('pass');
  await until(() => exits > 0, 'exit reported');
  t.is(exits, 1);
});

test.serial('each exit is reported once to every listener of that caller, and to no other', async (t) => {
  const clock = new ManualClock();
  const watch = new LivenessWatch(kernel, clock);
  t.teardown(() => watch.close());
  const listener = await TestListener.open(t);
  const [first, second] = [await connect(t, listener), await connect(t, listener)];
  const exits: string[] = [];
  watch.watch(first.caller, () => exits.push('first a'));
  watch.watch(first.caller, () => exits.push('first b'));
  watch.watch(first.caller, () => exits.push('never'))();
  const stop = watch.watch(second.caller, () => exits.push('second'));
  clock.ring();
  t.deepEqual(exits, []);
  await first.peer.stop();
  clock.ring();
  clock.ring();
  t.deepEqual(exits, ['first a', 'first b']);
  stop();
  stop();
  await second.peer.stop();
  clock.ring();
  t.deepEqual(exits, ['first a', 'first b']);
});

test.serial('the clock runs only while someone is watched', async (t) => {
  const clock = new ManualClock();
  const watch = new LivenessWatch(kernel, clock);
  const { peer, caller } = await connect(t, await TestListener.open(t));
  t.is(clock.alarms.size, 0);
  const stops = [watch.watch(caller, () => {}), watch.watch(caller, () => {})];
  t.deepEqual([...clock.alarms.values()].map(({ ms }) => ms), [250]);
  clock.ring();
  t.is(clock.alarms.size, 1);
  for (const stop of stops) stop();
  t.is(clock.alarms.size, 0);
  watch.watch(caller, () => {});
  await peer.stop();
  clock.ring();
  t.is(clock.alarms.size, 0);
  watch.close();
});

test.serial('a caller that had ended before is reported at the next question, not at once', async (t) => {
  const clock = new ManualClock();
  const watch = new LivenessWatch(kernel, clock);
  t.teardown(() => watch.close());
  const { peer, caller } = await connect(t, await TestListener.open(t));
  await peer.stop();
  let exits = 0;
  watch.watch(caller, () => exits++);
  t.is(exits, 0);
  clock.ring();
  t.is(exits, 1);
});

test.serial('a listener may stop another one, or watch again, while exits are reported', async (t) => {
  const clock = new ManualClock();
  const watch = new LivenessWatch(kernel, clock);
  t.teardown(() => watch.close());
  const { peer, caller } = await connect(t, await TestListener.open(t));
  const exits: string[] = [];
  watch.watch(caller, () => {
    exits.push('first');
    stop();
    watch.watch(caller, () => exits.push('again'));
  });
  const stop = watch.watch(caller, () => exits.push('stopped'));
  await peer.stop();
  clock.ring();
  t.deepEqual(exits, ['first']);
  clock.ring();
  t.deepEqual(exits, ['first', 'again']);
});

test.serial('a closed watch reports nothing, takes nobody and asks nothing', async (t) => {
  const clock = new ManualClock();
  const watch = new LivenessWatch(kernel, clock);
  const { peer, caller } = await connect(t, await TestListener.open(t));
  const stop = watch.watch(caller, () => t.fail());
  watch.close();
  watch.close();
  t.is(clock.alarms.size, 0);
  stop();
  await peer.stop();
  clock.ring();
  t.is(t.throws(() => watch.watch(caller, () => {}), { instanceOf: SignetError })?.code, 'stopped');
});
