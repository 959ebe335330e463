import { same } from '../expect.ts';
import type { Report } from '../report.ts';
import type { Step } from '../step.ts';
import { BLUE, type World } from '../world.ts';
import { eventOf, idsOf, type Line, type PodPlan } from '../workloads.ts';

const STARTS = 50;
const AT_ONCE = 10;
const SERVICE_ACCOUNT = 'alpha';

/**
 * SPIRE 1.15.3 with its defaults: its intervals, simulated (the server's entry cache is rebuilt every 5 s, the agent asks every
 * 5 s; an SVID that is not in the agent's cache is polled for from 500 ms on, with 10 ms for the signature).
 */
const SPIRE_ROWS: readonly (readonly string[])[] = [
  ['SPIRE: from a registration to a usable SVID (simulated intervals)', '4,900', '7,800', '9,400', '10,400'],
  ['SPIRE: an SVID that is not cached yet (simulated intervals)', '500', '', '1,250', ''],
];
const SOURCES =
  'SPIRE polls: maintainers say "up to 5 s or so" (spiffe/spire#2760), up to 10 s by design (#1859); ' +
  'attestation polls the kubelet 60 times, 500 ms apart (#3092).';

/** Programs whose first instruction is the call, each in a pod that did not exist a moment before. */
export const starts: Step = {
  title: `${STARTS} pods whose first instruction is the fetch`,
  async run(world, report) {
    const lines: Line[] = [];
    for (let from = 0; from < STARTS; from += AT_ONCE) lines.push(...(await batch(world, from)));
    await report.check(`${STARTS} of ${STARTS} first calls get an SVID; none is refused`, () => {
      same(
        lines.filter((line) => line.error !== undefined || line.event === 'failed'),
        [],
        'calls without an SVID',
      );
      same(lines.length, STARTS, 'answered calls');
    });
    await report.check('each gets its own ID, and no two have the same key', () => {
      const own = world.idOf(BLUE, SERVICE_ACCOUNT);
      same(
        lines.filter((line) => idsOf(line).join() !== own),
        [],
        'calls with other IDs',
      );
      same(new Set(lines.map((line) => line.svids?.[0]?.key)).size, STARTS, 'different keys');
    });
    printTable(report, lines);
    report.note(`the agent after them: ${await world.memoryOfAgent()}`);
  },
};

async function batch(world: World, from: number): Promise<readonly Line[]> {
  const plans = Array.from({ length: AT_ONCE }, (_, at): PodPlan => ({
    namespace: BLUE,
    name: `first-${from + at}`,
    serviceAccount: SERVICE_ACCOUNT,
    args: ['first'],
  }));
  await world.start(...plans);
  try {
    return await Promise.all(plans.map((plan) => eventOf(world.kubectl, plan, 'first')));
  } finally {
    await world.remove(...plans);
  }
}

function printTable(report: Report, lines: readonly Line[]): void {
  const rows = [
    ['milliseconds', 'p50', 'p90', 'p99', 'max'],
    ['Signet: from the first instruction to the first SVID', ...quantiles(lines, 'fromFirstInstructionMs')],
    ["Signet: from the making of the container's process (10 ms steps)", ...quantiles(lines, 'fromProcessStartMs')],
    ...SPIRE_ROWS,
  ];
  report.note(
    rows.map(([what = '', ...figures]) => what.padEnd(68) + figures.map((figure) => figure.padStart(8)).join('')).join('\n'),
  );
  report.note(SOURCES);
}

function quantiles(lines: readonly Line[], member: string): readonly string[] {
  const sorted = lines
    .map((line) => Number(line[member]))
    .filter(Number.isFinite)
    .sort((a, b) => a - b);
  const at = (share: number): string => (sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN).toFixed(1);
  return [at(0.5), at(0.9), at(0.99), at(1)];
}
