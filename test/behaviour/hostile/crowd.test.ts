import { readFileSync } from 'node:fs';
import { needsRoot, testIf } from '../../support/kernel-conditions.ts';
import { eventually, Field, OWNER, STRANGER } from '../../support/hostile-field.ts';

const limit = hardLimit();
/** Three owners; each connection is a descriptor of theirs and two of the agent's, of which it needs 3 x 2,048 x 2. */
const crowd = Math.min(5_000, limit - 500);
const shortage = crowd < 5_000 ? ` (not 15,000: the hard limit of descriptors is ${limit})` : '';

testIf(needsRoot, `${crowd * 3} connections of three owners: each gets 2,048, and the others are served${shortage}`, async (t) => {
  const field = await Field.open(t, { preludeTimeout: '30s' });
  const before = field.descriptors;
  const owners = [OWNER, 65_532, 65_531];
  const attackers = await Promise.all(owners.map((uid) => field.attack('crowd', uid, crowd)));
  await field.normal.serves();
  for (const { facts } of attackers) {
    t.is(facts['connected'], crowd);
    t.is(facts['open'], 2_048);
  }
  // A socket and a pidfd each.
  t.true(field.descriptors - before <= owners.length * 2_048 * 2 + 16);
  for (const uid of owners) await field.refused('too_many_connections', uid);
  await Promise.all(attackers.map(({ process }) => process.stop()));
  await eventually(() => field.descriptors <= before + 8, () => `${field.descriptors} descriptors; before there were ${before}`);
  field.isUnharmed(t);
});

testIf(needsRoot, 'an agent with few descriptors refuses connections by its own limit, and never runs out', async (t) => {
  const field = await Field.open(t, { connections: 300, connectionsPerOwner: 200 });
  const before = field.descriptors;
  const { facts, process } = await field.attack('crowd', STRANGER, 1_000);
  t.is(facts['open'], 200);
  await field.normal.serves();
  await field.refused('too_many_connections', STRANGER);
  t.false(field.lines.some((line) => line.reason === 'descriptors'));
  await process.stop();
  await eventually(() => field.descriptors <= before + 8, () => `${field.descriptors} descriptors; before there were ${before}`);
  field.isUnharmed(t);
});

function hardLimit(): number {
  const [, hard = '0'] = /^Max open files\s+\S+\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'utf8')) ?? [];
  return hard === 'unlimited' ? Infinity : Number(hard);
}
