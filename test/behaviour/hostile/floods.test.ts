import { needsRoot, testIf } from '../../support/kernel-conditions.ts';
import { answered, fieldForAll, OWNER, STRANGER, sumOf } from '../../support/hostile-field.ts';
import type { AttackName } from '../../support/hostile-attacker.ts';

/** What becomes of the connection. `whatever`: it is closed, or not read any more, or all was for nothing, as it happens to come. */
type End = 'closed' | 'kept' | 'whatever';

/** Each flood, what it may cost in MiB, and its end. */
const FLOODS: readonly (readonly [title: string, name: AttackName, most: number, end: End])[] = [
  ['30,000 rapid resets (CVE-2023-44487)', 'rapidReset', 64, 'closed'],
  ['30,000 resets that the agent is made to send (CVE-2025-8671)', 'madeToReset', 64, 'closed'],
  ['CONTINUATION without end (CVE-2024-27983)', 'continuation', 24, 'closed'],
  ['CONTINUATION without end in the first request', 'continuationFirst', 24, 'closed'],
  ['100,000 SETTINGS, whose ACKs are not read (CVE-2019-9515)', 'settings', 24, 'whatever'],
  ['100,000 PINGs, whose ACKs are not read (CVE-2019-9512)', 'ping', 24, 'whatever'],
  ['100,000 PRIORITY frames (CVE-2019-9513)', 'priority', 24, 'whatever'],
  ['100,000 DATA frames without content (CVE-2019-9518)', 'emptyData', 24, 'whatever'],
  ['50,000 frames of an unknown type', 'unknownFrames', 24, 'whatever'],
  ['100,000 WINDOW_UPDATEs', 'windowUpdate', 24, 'whatever'],
  ['headers that become 1,000 times as long (HPACK)', 'hpackBomb', 24, 'kept'],
];

const field = fieldForAll();

for (const [title, name, most, end] of FLOODS) {
  testIf(needsRoot, `${title}: ${end === 'closed' ? 'the connection is closed, and ' : ''}nobody else notices`, async (t) => {
    await field().siege(t, name, {
      most,
      uids: [STRANGER, OWNER],
      check: (facts) => {
        if (end !== 'whatever') t.is(facts['open'], end === 'kept');
        if (name === 'hpackBomb') t.is(facts.resets?.['11'], 200);
      },
    });
  });
}

testIf(needsRoot, 'header blocks that the agent puts together itself are refused by name', async (t) => {
  await field().refused('prelude_bytes', STRANGER, /header block in more than 8 CONTINUATION frames/);
  t.pass();
});

testIf(needsRoot, '24,000 calls as fast as they go: each is answered or refused, and others are served', async (t) => {
  await field().siege(t, 'callFlood', {
    most: 176,
    count: 24_000,
    uids: [STRANGER, OWNER],
    check: (facts, uid) => {
      const served = answered(facts, uid === STRANGER ? '7 no%20identity%20issued' : '0 OK');
      t.is(served + answered(facts, '14 too%20many%20calls') + (uid === STRANGER ? 32 : 0), sumOf(facts.endings));
      t.true(sumOf(facts.endings) >= 24_000);
    },
  });
});

testIf(needsRoot, 'WE-32: 20,000 calls of a method that nobody has are calls like any other', async (t) => {
  await field().siege(t, 'unknownMethods', {
    most: 64,
    uids: [STRANGER, OWNER],
    check: (facts) => {
      const refused = answered(facts, '12 The%20server%20does%20not%20implement%20the%20method%20/No.Such/Rpc');
      t.is(refused + answered(facts, '14 too%20many%20calls') + answered(facts, '0 OK'), sumOf(facts.endings));
      t.true(refused > 1_000);
    },
  });
});
