import { measuresOf, OWN, peersOf, ratio } from './measures.ts';
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
  return peersOf(figures).flatMap((peer) => {
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
  });
}

function named(lead: string, list: readonly Finding[]): string[] {
  if (list.length === 0) return [];
  return [`${lead}: ${list.slice(0, NAMED).map((one) => `${one.name} ${figure(one.ratio)}×`).join('; ')}.`];
}
