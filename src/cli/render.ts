import { stripVTControlCharacters, styleText } from 'node:util';
import type { Io } from './io.ts';

export type Style = 'bold' | 'dim' | 'red' | 'yellow' | 'green';
export type Paint = (style: Style, text: string) => string;

/** Colours only on a terminal that has them, and never against NO_COLOR (no-color.org). */
export function painter(io: Pick<Io, 'isTty' | 'env'>): Paint {
  const noColor = io.env['NO_COLOR'];
  const on = io.isTty && (noColor === undefined || noColor === '') && io.env['TERM'] !== 'dumb';
  return on ? (style, text) => styleText(style, text, { validateStream: false }) : (_style, text) => text;
}

/** Text from elsewhere, with what a terminal would obey (or a reader misread) made visible. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`);
}

export type Row = readonly [label: string, ...values: string[]];

/** Lines of `label  value`, the values aligned; further values of a row stand below its first. Rows without one are left out. */
export function fields(rows: readonly Row[], paint: Paint, indent = '  '): string {
  const shown = rows.filter(([, ...values]) => values.length > 0);
  const width = Math.max(0, ...shown.map(([label]) => label.length));
  return shown
    .flatMap(([label, ...values]) =>
      values.map((value, index) => `${indent}${paint('dim', (index === 0 ? label : '').padEnd(width))}  ${value}\n`),
    )
    .join('');
}

/** Columns under headings, each as wide as its widest cell. */
export function table(headings: readonly string[], rows: readonly (readonly string[])[], paint: Paint, indent = '  '): string {
  const widths = headings.map((heading, column) => {
    return Math.max(heading.length, ...rows.map((row) => visibleLength(row[column] ?? '')));
  });
  const line = (cells: readonly string[]): string => {
    const padded = cells.map((cell, column) => cell + ' '.repeat((widths[column] ?? 0) - visibleLength(cell)));
    return `${indent}${padded.join('  ')}`.trimEnd();
  };
  return [paint('dim', line(headings)), ...rows.map(line)].map((text) => `${text}\n`).join('');
}

/** JSON for machines, with a line end. */
export function jsonDocument(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

function visibleLength(text: string): number {
  return stripVTControlCharacters(text).length;
}
