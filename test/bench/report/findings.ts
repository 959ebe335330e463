import { measuresOf, OWN, peersOf, ratio, type Measure } from './measures.ts';
import { figure } from './table.ts';
import type { Figures } from '../figures.ts';

/** Within this much of 1 two rounds of the same program differ too. */
const SAME = 1.05;
const NAMED = 5;

interface Finding {
  readonly name: string;
  readonly ratio: number;
}

/** What the ratios come to, one sentence each; every figure is worked out here. */
export function findings(figures: Figures): string[] {
  const measures = measuresOf(figures);
  return [...peersOf(figures).flatMap((peer) => besidePeer(measures, peer)), ...stormFindings(figures)];
}

function besidePeer(measures: readonly Measure[], peer: string): string[] {
  const all = measures.flatMap((measure): Finding[] => {
    const found = ratio(measure, OWN, peer);
    return found === undefined ? [] : [{ name: measure.name, ratio: found.value }];
  });
  if (all.length === 0) return [];
  const ahead = all.filter((one) => one.ratio > SAME).toSorted((a, b) => b.ratio - a.ratio);
  const behind = all.filter((one) => one.ratio < 1 / SAME).toSorted((a, b) => a.ratio - b.ratio);
  const even = all.length - ahead.length - behind.length;
  return [
    `Beside ${peer}: ahead in ${ahead.length} of ${all.length} rows, within ${figure((SAME - 1) * 100)} % in ${even}, behind in ${behind.length}.`,
    ...named(`Furthest ahead of ${peer}`, ahead),
    ...named(`Furthest behind ${peer}`, behind),
  ];
}

/** Who lost callers in storms in a row, and when. */
function stormFindings({ storms }: Figures): string[] {
  return [...Map.groupBy(storms?.rows ?? [], ({ what }) => what)].flatMap(([what, rows]) => {
    const each = rows.flatMap(({ subject, samples }) => {
      const { lost_in, served } = samples[0]?.report.detail ?? {};
      if (lost_in === undefined) return [];
      const lost = (samples[0]?.report.errors['no_answer'] ?? 0);
      return [`${subject} ${lost_in === 0 ? `lost no caller in ${served?.length}` : `left ${lost} callers without an answer in storm ${lost_in}`}`];
    });
    return each.length === 0 ? [] : [`${what} in a row: ${each.join('; ')}.`];
  });
}

function named(lead: string, list: readonly Finding[]): string[] {
  if (list.length === 0) return [];
  return [`${lead}: ${list.slice(0, NAMED).map((one) => `${one.name} ${figure(one.ratio)}×`).join('; ')}.`];
}
