import test from 'ava';
import { activationOf, activeOf, dueStep, nextChange, publishedOf, type Rotating } from '../../src/authority/rotation.ts';

const LIFE = 600;
const first: Rotating = { notBefore: 0, activatesAt: 0, notAfter: LIFE };

/** Does at each moment what is due, as the authority does, and tells what was active and public. */
function live(until: number): { at: number; active: Rotating | undefined; published: readonly Rotating[] }[] {
  let all: Rotating[] = [];
  return Array.from({ length: until }, (_, now) => {
    const step = dueStep(all, now);
    if (step !== 'none') {
      const activatesAt = step === 'prepare' ? activationOf(now, LIFE) : now;
      all = [...all, { notBefore: now, activatesAt, notAfter: activatesAt + LIFE }];
    }
    all = [...publishedOf(all, now)];
    return { at: now, active: activeOf(all, now), published: all };
  });
}

test('the first one is made at once, its successor at half of life, and that one signs at two thirds', (t) => {
  t.is(dueStep([], 0), 'create');
  t.is(dueStep([first], LIFE / 2 - 1), 'none');
  t.is(dueStep([first], LIFE / 2), 'prepare');
  const second = { notBefore: 300, activatesAt: activationOf(300, LIFE), notAfter: 1_000 };
  t.is(second.activatesAt, 400);
  t.is(dueStep([first, second], 300), 'none');
  t.is(activeOf([first, second], 399), first);
  t.is(activeOf([first, second], 400), second);
});

test('FED-02, FED-03, FED-04: whatever signs was public a sixth of a life before, and stays until its end', (t) => {
  const days = live(5_000);
  const made = new Map<Rotating, number>();
  for (const { at, active, published } of days) {
    t.truthy(active, `somebody signs at ${at}`);
    for (const one of published) made.set(one, made.get(one) ?? at);
    if (active === undefined) continue;
    t.true(published.includes(active));
    if (at > 0 && active.activatesAt > 0) t.true(at - (made.get(active) ?? at) >= LIFE / 6, `${at}`);
  }
  t.true(made.size > 10, 'it rotated');
  t.true(Math.max(...days.map(({ published }) => published.length)) <= 2, 'and what has ended is dropped');
});

test('after a long sleep a new one signs at once', (t) => {
  t.is(activeOf([first], LIFE), undefined);
  t.is(dueStep([first], LIFE), 'create');
  t.deepEqual(publishedOf([first], LIFE), []);
});

test('when the clock goes back, the soonest to start is better than none', (t) => {
  const later: Rotating = { notBefore: 0, activatesAt: 500, notAfter: 1_000 };
  t.is(activeOf([later], 10), later);
  t.is(activeOf([{ ...later, notBefore: 20 }], 10), undefined, 'but not one that is not valid yet');
});

test('the next change is the soonest of what is to come', (t) => {
  t.is(nextChange([first], 0), 300);
  t.is(nextChange([first], 300), 600);
  t.is(nextChange([first, { notBefore: 300, activatesAt: 400, notAfter: 1_000 }], 300), 400);
  t.is(nextChange([], 0), Infinity);
});
