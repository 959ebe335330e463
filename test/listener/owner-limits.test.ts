import test from 'ava';
import { OwnerLimits, type ShareLimits } from '../../src/listener/owner-limits.ts';
import { FakeClock } from '../support/fake-clock.ts';

const WIDE: ShareLimits = {
  connections: 100,
  connectionsPerOwner: 50,
  connectionRatePerOwner: 1_000,
  calls: 100,
  callsPerOwner: 50,
  callRatePerOwner: 1_000,
};

function limits(narrow: Partial<ShareLimits>): { owners: OwnerLimits; clock: FakeClock } {
  const clock = new FakeClock();
  return { owners: new OwnerLimits({ ...WIDE, ...narrow }, clock), clock };
}

test('one owner exhausts only its own share of connections', (t) => {
  const { owners } = limits({ connectionsPerOwner: 2 });
  t.is(owners.enter('uid:1'), undefined);
  t.is(owners.enter('uid:1'), undefined);
  t.is(owners.enter('uid:1'), 'too_many_connections');
  t.is(owners.enter('uid:2'), undefined);
  owners.leave('uid:1');
  t.is(owners.enter('uid:1'), undefined);
});

test('all owners together have no more than there is', (t) => {
  const { owners } = limits({ connections: 2 });
  owners.enter('uid:1');
  t.false(owners.isFull);
  owners.enter('uid:2');
  t.true(owners.isFull);
  t.is(owners.enter('uid:3'), 'too_many_connections');
});

test('calls have places of their own', (t) => {
  const { owners } = limits({ callsPerOwner: 1, calls: 2 });
  t.is(owners.begin('uid:1'), undefined);
  t.is(owners.begin('uid:1'), 'too_many_calls');
  t.is(owners.begin('uid:2'), undefined);
  t.is(owners.begin('uid:3'), 'too_many_calls');
  owners.finish('uid:1');
  t.is(owners.begin('uid:3'), undefined);
});

test('a rate allows a burst of twice its value and then fills up again', (t) => {
  const { owners, clock } = limits({ callRatePerOwner: 10, callsPerOwner: 1_000, calls: 1_000 });
  for (let i = 0; i < 20; i += 1) t.is(owners.begin('uid:1'), undefined);
  t.is(owners.begin('uid:1'), 'call_rate');
  t.is(owners.begin('uid:2'), undefined, 'another owner has a rate of its own');
  clock.advance(100);
  t.is(owners.begin('uid:1'), undefined);
  t.is(owners.begin('uid:1'), 'call_rate');
});

test('leaving and coming back does not fill a rate', (t) => {
  const { owners } = limits({ connectionRatePerOwner: 2 });
  for (let i = 0; i < 4; i += 1) {
    t.is(owners.enter('uid:1'), undefined);
    owners.leave('uid:1');
  }
  t.is(owners.enter('uid:1'), 'connection_rate');
});

test('owners that are gone are forgotten, however many came', (t) => {
  const { owners, clock } = limits({});
  for (let uid = 0; uid < 5_000; uid += 1) {
    owners.enter(`uid:${uid}`);
    owners.leave(`uid:${uid}`);
    clock.advance(1);
  }
  t.true(owners.taken.owners <= 1_025, `${owners.taken.owners} owners are remembered`);
  t.deepEqual({ ...owners.taken, owners: 0 }, { connections: 0, calls: 0, owners: 0 });
});
