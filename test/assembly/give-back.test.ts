import test from 'ava';
import { GiveBack } from '../../src/assembly/give-back.ts';
import { FakeClock } from '../support/fake-clock.ts';

function setUp() {
  const clock = new FakeClock();
  const given: string[] = [];
  const work = { done: 10 };
  const giveBack = new GiveBack({
    clock,
    done: () => work.done,
    trimMemory: () => given.push('trim'),
    collectGarbage: () => given.push('collect'),
  });
  const look = (): number => {
    clock.advance(5_000);
    return given.length;
  };
  return { giveBack, given, work, look };
}

test('what the start has used is given back once it is quiet, garbage first, and then no more', (t) => {
  const { given, look } = setUp();
  look();
  t.deepEqual(given, ['collect', 'trim']);
  for (let times = 0; times < 10; times += 1) look();
  t.is(given.length, 2);
});

test('while much is done nothing is given back; after it, once', (t) => {
  const { work, look } = setUp();
  for (let times = 0; times < 5; times += 1) {
    work.done += 1_000;
    t.is(look(), 0);
  }
  work.done += 10;
  t.is(look(), 2);
  t.is(look(), 2);
});

test('a little at a time adds up', (t) => {
  const { work, look } = setUp();
  t.is(look(), 2);
  work.done += 200;
  t.is(look(), 2);
  work.done += 200;
  t.is(look(), 2);
  work.done += 200;
  t.is(look(), 4);
});

test('once closed it does nothing', (t) => {
  const { giveBack, look } = setUp();
  giveBack.close();
  t.is(look(), 0);
});
