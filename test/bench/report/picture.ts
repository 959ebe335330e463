import { GRPC, measuresOf, OWN, peersOf, ratio } from './measures.ts';
import { figure } from './table.ts';
import type { Figures } from '../figures.ts';

/** One line of the picture: a name, and for each peer a ratio or nothing. */
export interface BarRow {
  readonly name: string;
  readonly ratios: readonly (number | undefined)[];
}

const WIDTH = 900;
/** Where names end and where the bars may begin and end. */
const [NAME_END, LEFT, RIGHT] = [330, 390, 850];
const [TOP, BAR, GAP] = [78, 10, 10];
const LEGEND = 590;
/** Readable on white and on black: 4.2 to 1 or more on either. */
const GREY = '#757c85';
const COLOURS = ['#3a86c8', '#c97a1e', '#4c9a5b'];

const escape = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
const at = (value: number): string => value.toFixed(1).replace(/\.0$/, '');

export function barRows(figures: Figures): BarRow[] {
  const peers = peersOf(figures);
  return measuresOf(figures)
    .filter(({ name }) => !name.endsWith(GRPC))
    .map((measure) => ({ name: measure.name, ratios: peers.map((peer) => ratio(measure, OWN, peer)?.value) }))
    .filter(({ ratios }) => ratios.some((one) => one !== undefined));
}

/** Bars of ratios on a logarithmic scale around 1, as SVG without scripts, fonts or links. */
export function picture(peers: readonly string[], rows: readonly BarRow[], date: string): string {
  const logs = rows.flatMap(({ ratios }) => ratios.flatMap((one) => (one === undefined ? [] : [Math.abs(Math.log2(one))])));
  const span = Math.ceil(Math.max(1, ...logs));
  const x = (value: number): number => LEFT + ((Math.log2(value) + span) / (2 * span)) * (RIGHT - LEFT);
  const step = peers.length * BAR + GAP;
  const bottom = TOP + rows.length * step;
  const ticks = Array.from({ length: 2 * span + 1 }, (_, i) => i - span).map((power) => {
    const label = power < 0 ? `1/${2 ** -power}` : String(2 ** power);
    const place = at(x(2 ** power));
    const [width, opacity] = power === 0 ? [1.5, 1] : [0.5, 0.4];
    const stroke = `stroke="${GREY}" stroke-width="${width}" stroke-opacity="${opacity}"`;
    return `<line x1="${place}" x2="${place}" y1="${TOP - 6}" y2="${bottom}" ${stroke}/><text x="${place}" y="${TOP - 12}" text-anchor="middle">${label}×</text>`;
  });
  const legend = peers.map((peer, i) => (
    `<rect x="${LEGEND + i * 130}" y="11" width="10" height="10" fill="${COLOURS[i % COLOURS.length]}"/>`
    + `<text x="${LEGEND + 15 + i * 130}" y="20">to ${escape(peer)}</text>`
  ));
  const lines = rows.map((row, r) => barLine(row, TOP + r * step + GAP / 2, x));
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${bottom + 20}" width="${WIDTH}" height="${bottom + 20}" role="img" `
      + `font-family="system-ui, sans-serif" font-size="12" fill="${GREY}">`,
    `<title>How many times as good as SPIRE Signet is</title>`,
    `<text x="10" y="20" font-size="15" font-weight="600">How many times as good as SPIRE is ${OWN}?</text>`,
    `<text x="10" y="41">To the right of 1× is better, in rates, times and memory. ${escape(date)}</text>`,
    ...legend,
    ...ticks,
    ...lines,
    '</svg>',
    '',
  ].join('\n');
}

function barLine({ name, ratios }: BarRow, top: number, x: (value: number) => number): string {
  const middle = top + (ratios.length * BAR) / 2;
  const bars = ratios.map((ratio, i) => {
    if (ratio === undefined) return '';
    const y = top + i * BAR;
    const [from, to] = ratio >= 1 ? [x(1), x(ratio)] : [x(ratio), x(1)];
    const label = ratio >= 1 ? `x="${at(to + 4)}" text-anchor="start"` : `x="${at(from - 4)}" text-anchor="end"`;
    return `<rect x="${at(from)}" y="${at(y)}" width="${at(Math.max(to - from, 0.5))}" height="${BAR - 1}" fill="${COLOURS[i % COLOURS.length]}"/>`
      + `<text ${label} y="${at(y + BAR - 1)}" font-size="10">${figure(ratio)}×</text>`;
  });
  return `<text x="${NAME_END}" y="${at(middle + 4)}" text-anchor="end">${escape(name)}</text>${bars.join('')}`;
}
