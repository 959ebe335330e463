import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { holds, same } from '../expect.ts';
import type { Harness } from '../harness.ts';
import { buildWorkload } from '../images.ts';
import type { Memory } from '../memory.ts';
import type { Report } from '../report.ts';
import { LocalAgent } from '../scale/agent.ts';
import { callFromPod, makeCgroupRoot, removeCgroupRoot } from '../scale/caller.ts';
import { FakeNode } from '../scale/fake-node.ts';
import type { Step } from '../step.ts';
import { RED, type World } from '../world.ts';
import { idsOf, type Line } from '../workloads.ts';

const SIZES = [1, 110, 250];
const CALLERS = 50;

interface Row {
  readonly size: number;
  readonly idle: Memory;
  readonly after: Memory;
  readonly requests: string;
  readonly tookMs: readonly number[];
}

/** How much an agent needs for a full node: an agent on this machine that takes care of a node that only the API knows. */
export const scale: Step = {
  title: 'a full node',
  async run(world, report) {
    const { harness } = world;
    if (harness === undefined)
      return report.skip('110 and 250 pods', 'only on the harness: the agent and its callers run on this machine');
    const scratch = mkdtempSync(join(tmpdir(), 'signet-e2e-scale-'));
    const node = new FakeNode(world.kubectl, world.images);
    try {
      const program = await buildWorkload(scratch);
      makeCgroupRoot();
      await node.create();
      const rows: Row[] = [];
      for (const size of SIZES)
        await report.check(
          `an agent with ${size} pods attests callers of ${Math.min(size, CALLERS)} of them, with one list and one watch of pods`,
          async () => void rows.push(await measure(world, harness, node, size, program, scratch)),
        );
      printTable(report, rows);
    } finally {
      await node.remove();
      removeCgroupRoot();
      rmSync(scratch, { recursive: true, force: true });
    }
  },
};

async function measure(
  world: World,
  harness: Harness,
  node: FakeNode,
  size: number,
  program: string,
  scratch: string,
): Promise<Row> {
  const pods = await node.pods(size);
  same(pods.length, size, 'pods of the node');
  const agent = await LocalAgent.start(harness, join(scratch, String(size)));
  try {
    const idle = agent.memory();
    const lines: Line[] = [];
    for (const pod of pods.slice(0, CALLERS)) lines.push(await callFromPod(program, pod.metadata.uid, agent.endpoint));
    same(
      lines.filter((line) => idsOf(line).join() !== world.idOf(RED, 'alpha')),
      [],
      'callers without their ID',
    );
    const row = {
      size,
      idle,
      after: agent.memory(),
      requests: agent.proxy.summary,
      tookMs: lines.map((line) => Number(line['tookMs'])).sort((a, b) => a - b),
    };
    holds(
      agent.proxy.count('get pods') === 1 && agent.proxy.count('watch pods') === 1,
      `it asked the API server ${row.requests}`,
    );
    return row;
  } finally {
    await agent.stop();
  }
}

function printTable(report: Report, rows: readonly Row[]): void {
  const at = (sorted: readonly number[], share: number): string =>
    (sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN).toFixed(1);
  const lines = rows.map(
    ({ size, idle, after, tookMs, requests }) =>
      [
        String(size),
        `${idle.rss} / ${idle.anonymous}`,
        `${after.rss} / ${after.anonymous}`,
        `${at(tookMs, 0.5)} / ${at(tookMs, 1)}`,
        requests,
      ] as const,
  );
  const head = [
    'pods',
    'MB, ready: RSS / anonymous',
    'MB, after the calls',
    'ms, connect to SVID: p50 / max',
    'requests to the API server',
  ] as const;
  report.note(
    [head, ...lines]
      .map((row) =>
        row.map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd((head[column] ?? '').length + 2))).join(''),
      )
      .join('\n'),
  );
}
