import test from 'ava';
import { Turns } from '../../src/listener/turns.ts';
import { FakeClock } from '../support/fake-clock.ts';

/** The next turn of the event loop and all that follows from it. */
async function turn(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
  await new Promise((resolve) => setImmediate(resolve));
}

function setUp() {
  const clock = new FakeClock();
  const turns = new Turns(clock);
  const done: string[] = [];
  const work = (name: string, ms: number) => (): void => {
    done.push(name);
    clock.advance(ms);
  };
  return { clock, turns, done, work };
}

test('whoever has used up the slice of a turn waits for the next one; nobody else does', async (t) => {
  const { clock, turns } = setUp();
  t.true(turns.begin('noisy'));
  clock.advance(3);
  t.false(turns.begin('noisy'));
  t.true(turns.begin('quiet'));
  await turn();
  t.true(turns.begin('noisy'));
});

test('what was begun counts until the next one begins, promises that follow from it included', (t) => {
  const { clock, turns } = setUp();
  t.true(turns.begin('a'));
  clock.advance(1);
  t.true(turns.begin('a'));
  clock.advance(1);
  t.false(turns.begin('a'));
});

test('what waits is done in later turns, owner by owner, no more of one than its slice', async (t) => {
  const { turns, done, work } = setUp();
  for (const name of ['a1', 'a2', 'a3']) turns.later('a', work(name, 1.5));
  turns.later('b', work('b1', 0.1));
  await turn();
  t.deepEqual(done.slice(0, 3), ['a1', 'a2', 'b1']);
  await turn();
  t.deepEqual(done, ['a1', 'a2', 'b1', 'a3']);
});

test('what comes for an owner that has something waiting comes after it', async (t) => {
  const { turns, done, work } = setUp();
  turns.later('a', work('first', 0));
  t.false(turns.begin('a'));
  turns.later('a', work('second', 0));
  await turn();
  t.deepEqual(done, ['first', 'second']);
});

test('what follows from one piece of work is done before the next', async (t) => {
  const { turns, done } = setUp();
  turns.later('a', () => {
    void Promise.resolve().then(() => Promise.resolve()).then(() => done.push('what follows'));
    done.push('one');
  });
  turns.later('a', () => done.push('two'));
  await turn();
  t.deepEqual(done, ['one', 'what follows', 'two']);
});

test('work that throws does not stop the others', async (t) => {
  const { turns, done, work } = setUp();
  const thrown = Promise.withResolvers<unknown>();
  const others = process.listeners('uncaughtException');
  process.removeAllListeners('uncaughtException');
  process.once('uncaughtException', (error) => thrown.resolve(error));
  turns.later('a', () => {
    throw new Error('a mistake');
  });
  turns.later('a', work('after it', 0));
  t.regex(String(await thrown.promise), /a mistake/);
  for (const listener of others) process.on('uncaughtException', listener);
  await turn();
  t.deepEqual(done, ['after it']);
});
