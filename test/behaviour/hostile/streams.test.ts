import { needsRoot, testIf } from '../../support/kernel-conditions.ts';
import { answered, fieldForAll, STRANGER, sumOf } from '../../support/hostile-field.ts';

const field = fieldForAll();

testIf(needsRoot, '10,000 streams on one connection, against what the agent announced: no more than that are open at once', async (t) => {
  await field().siege(t, 'tenThousandStreams', {
    most: 96,
    check: (facts) => {
      const told = sumOf(facts.endings) + (facts.resets?.['7'] ?? 0);
      t.true(facts['open'] === false || told === 10_000, 'each is answered or refused (RFC 9113 §5.1.2), or the connection ends');
      t.true(Number(facts['messages']) <= 256, 'streams of one connection that are open at once');
    },
  });
});

testIf(needsRoot, '2,000 FetchJWTSVID on one connection at once: the connection may end, the agent does not', async (t) => {
  await field().siege(t, 'twoThousandCalls', {
    most: 96,
    check: (facts) => t.true(facts['open'] === false || sumOf(facts.endings) + sumOf(facts.resets) === 2_000),
  });
});

testIf(needsRoot, '2,000 FetchJWTSVID on one connection, as many at once as it may have, are all answered', async (t) => {
  await field().siege(t, 'politeCalls', {
    most: 96,
    check: (facts, uid) => t.deepEqual(facts.endings, uid === STRANGER ? { '7 no%20identity%20issued': 2_000 } : { '0 OK': 2_000 }),
  });
  await field().refused('no_identity', STRANGER);
});

testIf(needsRoot, 'a reader with a window of zero costs what its calls may cost, until its connection is closed', async (t) => {
  await field().siege(t, 'zeroWindow', {
    most: 96,
    check: (facts, uid) => t.true(uid === STRANGER ? answered(facts, '7 no%20identity%20issued') === 2_048 : sumOf(facts.endings) === 0),
  });
  t.true(field().lines.every((line) => line.event !== 'refused' || line.uid !== 0));
});
