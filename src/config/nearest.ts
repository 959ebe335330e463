/** Longer texts are not slips of the finger, and the distance costs the product of both lengths. */
const LONGEST_COMPARED = 64;

/** The known name that `text` was most likely meant to be, or undefined when none is near: at most one slip in three letters. */
export function nearest(text: string, known: readonly string[]): string | undefined {
  if (text.length > LONGEST_COMPARED) return undefined;
  const wanted = plain(text);
  let best: string | undefined;
  let least = Math.max(1, Math.floor(wanted.length / 3)) + 1;
  for (const name of known) {
    const slips = distance(wanted, plain(name));
    if (slips < least) [best, least] = [name, slips];
  }
  return best;
}

/** `trust_domain` and `TrustDomain` are the same slip away from `trustDomain`: none. */
function plain(name: string): string {
  return name.toLowerCase().replaceAll(/[-_. ]/g, '');
}

/** Insertions, deletions, substitutions and swaps of neighbours between two texts (optimal string alignment). */
function distance(a: string, b: string): number {
  let before: number[] = [];
  let above = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const line = [row];
    for (let column = 1; column <= b.length; column++) {
      const same = a[row - 1] === b[column - 1];
      let slips = Math.min(cell(above, column) + 1, cell(line, column - 1) + 1, cell(above, column - 1) + (same ? 0 : 1));
      const swapped = row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1];
      if (swapped) slips = Math.min(slips, cell(before, column - 2) + 1);
      line.push(slips);
    }
    [before, above] = [above, line];
  }
  return cell(above, b.length);
}

function cell(line: readonly number[], column: number): number {
  return line[column] ?? Infinity;
}
